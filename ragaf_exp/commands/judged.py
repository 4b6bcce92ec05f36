"""Writes a run's scenes for the judges of other benchmarks, and reads their results into its report.

    python -m eval.export run=DIR out=DIR format=geneval|compbench|coco_mig|layoutsam [items=N]
        [images=generated|truth]
    python -m eval.export run=DIR out=DIR read=FILE

format: the benchmark whose files are written: prompts, layouts and pictures of the test split. out: a new folder, or with
read= the one that was written. items: number of test items; by default as many as the run's evaluation has. images: the
run's images, or the data's own as the ceiling. read: the file that the judge wrote.

Judges run with the benchmark's own code and weights. Their figures get a section of the report, which states that judge
and data differ from the published ones. Only data whose objects are known can be written, as the embedded scenes.

Example:
    python -m eval.export run=runs/latest out=judged format=compbench items=100
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import parse_args
from ragaf_exp.config.packaged import check_run
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_folder, write_json
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.core.writable import check_folder
from ragaf_exp.runs.followed import split_followed

log = logging.getLogger(__name__)
ARGUMENTS = {"run": str, "out": str, "format": str, "items": int, "images": str, "read": str}
MANIFEST, SCHEMA = "export.json", 1
GENERATED, TRUTH = "generated", "truth"


def main() -> None:
    """Write the files of a benchmark, or read its judge's results."""
    arguments, followed = split_followed(sys.argv[1:])
    args = checked(parse_args(arguments, ARGUMENTS))
    if "read" in args:
        _read(args)
    else:
        _write(args, followed)


def checked(args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with defaults. Raises UserError if one is missing or has no such value."""
    from eval.judges.formats import BENCHMARKS

    for key in ("run", "out"):
        if not args.get(key):
            raise UserError(f"{key}=: missing; give run=DIR out=DIR")
    if "read" in args:
        if others := sorted(args.keys() - {"run", "out", "read"}):
            raise UserError(f"{others[0]}=: not with read=; the exported folder states it")
        return args
    args = {"items": 0, "images": GENERATED, **args}
    if args.get("format") not in BENCHMARKS:
        raise UserError(f"format={args.get('format', '')}: must be one of {', '.join(BENCHMARKS)}")
    if args["images"] not in (GENERATED, TRUTH):
        raise UserError(f"images={args['images']}: must be {GENERATED} or {TRUTH}")
    if args["items"] < 0:
        raise UserError(f"items={args['items']}: must be at least 0 (0 = as the evaluation)")
    return args


def _write(args: dict[str, Any], followed: dict[str, str]) -> None:
    from eval.judges.formats import BENCHMARKS

    out = Path(args["out"]).absolute()
    check_folder(out.parent, "out")
    if out.exists():
        raise UserError(f"out={args['out']}: exists already; name a new folder, or give read=FILE for the judge's results")
    with stub_optional_imports():
        from ragaf_exp.config.compose import config_hash
        from ragaf_exp.runs.folder import RunFolder
        from ragaf_exp.runs.followed import follow

    folder, cfg = RunFolder.read(args["run"])
    cfg = follow(folder, cfg, followed)
    scenes = list(_scenes(folder, cfg, args["items"] or cfg.eval.test_items, args["images"] == GENERATED))
    if not any(scene.things for scene in scenes):
        raise UserError(f"run={args['run']}: its data know no objects and their places; take a run on data=scenes")
    benchmark, facts = BENCHMARKS[args["format"]], {"config_hash": config_hash(cfg), "seed": cfg.seed}

    def fill(path: Path) -> None:
        written = benchmark.write(scenes, path)
        for reason, count in written.left_out.items():
            log.warning("%s: %s %s", args["format"], f"{count} scenes left out, each" if count else "there is", reason)
        if not written.keys:
            raise UserError(f"format={args['format']}: none of the {len(scenes)} scenes can be judged; see the lines above")
        write_json(path / MANIFEST, {"schema": SCHEMA, "format": args["format"], "images": args["images"], **facts,
                                     **asdict(written)})  # fmt: skip

    write_folder(out, fill)
    print(f"{benchmark.title}: wrote {out}; run its judge there, then python -m eval.export run={args['run']} "
          f"out={args['out']} read=FILE, its {benchmark.results}")  # fmt: skip


def _scenes(folder: Any, cfg: Any, items: int, generated: bool) -> Iterator[Any]:
    """Yield the first test items as scenes, with sampled images or those of the data."""
    from eval.judges.scenes import scene_of
    from ragaf_exp.inference.load import load_run

    parts, pipeline = load_run(folder, cfg)
    examples = parts.examples("test")
    for first in range(0, min(items, len(examples)), cfg.eval.batch):
        batch = [examples[i] for i in range(first, min(first + cfg.eval.batch, items, len(examples)))]
        images = _sampled(pipeline, batch) if generated else [example.item.image for example in batch]
        yield from (scene_of(example.item, image) for example, image in zip(batch, images, strict=True))


def _sampled(pipeline: Any, examples: list[Any]) -> list[Any]:
    from ragaf_exp.data.loader import collate

    return list(pipeline(collate(examples)).to_images().final)


def _read(args: dict[str, Any]) -> None:
    from eval.judges.formats import BENCHMARKS

    with stub_optional_imports():
        from ragaf_exp.config.compose import config_hash
        from ragaf_exp.report import write_report
        from ragaf_exp.report.run import judged
        from ragaf_exp.runs.folder import RunFolder

    folder, cfg = RunFolder.read(args["run"])
    check_run(folder.path, "copy the run first")
    manifest = read_mapping(Path(args["out"]) / MANIFEST, SCHEMA)
    name = manifest.get("format")
    if name not in BENCHMARKS or not isinstance(manifest.get("keys"), list):
        raise UserError(f"out={args['out']}: was not written by python -m eval.export; give the folder that it wrote")
    if manifest.get("config_hash") != config_hash(cfg):
        raise UserError(f"out={args['out']}: was written for another run than {args['run']}")
    benchmark = BENCHMARKS[name]
    figures = benchmark.read(Path(args["read"]), len(manifest["keys"]))
    path, schema = folder.path / judged.FILE, judged.SCHEMA
    content = read_mapping(path, schema) if is_regular(path) else {"schema": schema, "judges": {}}
    content["judges"][f"{name}/{manifest['images']}"] = {
        "title": benchmark.title, "images": manifest["images"], "scenes": len(manifest["keys"]),
        "differs": benchmark.differs(), "figures": [asdict(figure) for figure in figures],
    }  # fmt: skip
    write_json(path, content)
    write_report(folder.path)
    for figure in figures:
        print(f"{figure.title}: {figure.value:.3f}" + (f" (n = {figure.n})" if figure.n else ""))
    print(f"{benchmark.title}: {benchmark.differs()}")
