"""Computes the metrics of a run, or of any folder of images.

    python -m eval run=DIR [out=FOLDER] [items=N] [eval=quick|full] [eval.KEY=VALUE ...] [data.root=DIR]
        [backbone.source=DIR]
    python -m eval images=DIR [reference=DIR] [captions=FILE] [sketches=DIR] [masks=DIR [hole=auto]] out=FILE.json
        [colours=true] [training=DIR] [on_error=skip] [eval=full] [eval.KEY=VALUE ...]

out: for a run in a read-only folder; receives metrics, images and report. eval, eval.KEY: overrides of the config group
conf/eval/. Paths and hub names in the config of a run from elsewhere, such as data.root and backbone.source, are used only
if the command line repeats them. Files are paired by name without suffix. captions: a .csv or .jsonl file with file_name
and text; in .jsonl also the phrases of the masks; with hole=auto, white, black, transparent or opaque the masks are
holes that were painted, with their own figures; for edited images also text_before, the caption before the edit. colours:
adds colour errors, as of white balance.
training: the training images, to detect references that were trained on. Example:

    python -m eval images=samples reference=photos captions=captions.csv out=metrics.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.config.packaged import check_run
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.safe_files import is_folder
from ragaf_exp.core.writable import check_file, check_folder
from ragaf_exp.runs.followed import split_followed

KNOWN = {"run": str, "items": int, "images": str, "reference": str, "captions": str, "sketches": str, "masks": str,
         "training": str, "out": str, "on_error": str, "hole": str, "colours": str}  # fmt: skip
FOLDERS = ("reference", "captions", "sketches", "masks")


def main() -> None:
    groups = ("eval", "memory", "cache")
    overrides = [text for text in sys.argv[1:] if text.partition("=")[0].split(".")[0] in groups]
    arguments, followed = split_followed([text for text in sys.argv[1:] if text not in overrides])
    args = parse_args(arguments, KNOWN)
    if ("run" in args) == ("images" in args):
        raise UserError("run=, images=: give one of them, e.g. run=runs/latest or images=DIR reference=DIR out=FILE.json")
    if args.get("items", 1) < 0:
        raise UserError(f"items={args['items']}: must be at least 0 (0 = all)")
    if followed and "run" not in args:
        raise UserError(f"{next(iter(followed))}=: only with run=DIR")
    _run(args, overrides, followed) if "run" in args else _images(args, overrides)


def _run(args: dict[str, Any], overrides: list[str], followed: dict[str, str]) -> None:
    others = sorted(set(args) - {"run", "items", "out"})
    if others:
        raise UserError(f"{others[0]}=: only with images=DIR; a run records its own")
    with stub_optional_imports():
        from ragaf_exp.config.compose import compose_config
        from ragaf_exp.evaluation.run import evaluate_run
        from ragaf_exp.report import write_report
        from ragaf_exp.report.terminal import print_summary
        from ragaf_exp.runs.folder import RunFolder
        from ragaf_exp.runs.followed import follow, named_by
        from ragaf_exp.runs.metrics_folder import figures_folder

    folder, cfg = RunFolder.read(args["run"])
    cfg = follow(folder, cfg, followed)
    if "out" in args:
        check_folder(Path(args["out"]), "out")
        folder = figures_folder(folder, Path(args["out"]))
    else:
        for path in (folder.path, folder.samples, *filter(is_folder, folder.samples.glob("*"))):
            check_run(path, "give out=FOLDER for the metrics")
    if overrides:
        folder.followed |= named_by(overrides)
        cfg = composed_over(cfg, compose_config(overrides), overrides)
    cfg.eval.test_items = args.get("items", cfg.eval.test_items)
    evaluate_run(folder, cfg)
    write_report(folder.path)
    print_summary(folder)


def composed_over(cfg: Any, composed: Any, overrides: list[str]) -> Any:
    """Apply overrides to a run's config: whole groups that they select, else single keys.

    Args:
        cfg: The run's config; it is changed.
        composed: The default config composed with the overrides.
        overrides: The overrides.

    Returns:
        The run's config.
    """
    from omegaconf import OmegaConf

    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        OmegaConf.update(cfg, key, OmegaConf.select(composed, key), merge=False)
    return cfg


def _images(args: dict[str, Any], overrides: list[str]) -> None:
    if "out" not in args or not any(name in args for name in FOLDERS):
        missing = "out=" if "out" not in args else "reference="
        raise UserError(f"{missing}: missing; give images=DIR reference=DIR out=FILE.json")
    if args.get("on_error", "raise") not in ("raise", "skip"):
        raise UserError(f"on_error={args['on_error']}: must be raise or skip")
    if args.get("colours", "false") not in ("true", "false"):
        raise UserError(f"colours={args['colours']}: must be true or false")
    from omegaconf import OmegaConf

    from eval.folders import Sources, evaluate_folders
    from eval.networks import Networks
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.config.schema import Eval
    from ragaf_exp.data.masks.read import HOLES
    from ragaf_exp.report.terminal import print_figures

    cfg = compose_config(overrides)
    settings = OmegaConf.to_object(OmegaConf.merge(Eval, cfg.eval))
    if args.get("hole", "auto") not in HOLES:
        raise UserError(f"hole={args['hole']}: must be one of {', '.join(HOLES)}")
    paths = {name: Path(args[name]) for name in ("images", "training", *FOLDERS) if name in args}
    sources = Sources(**paths, skip_damaged=args.get("on_error") == "skip", hole=args.get("hole", ""),
                      colours=args.get("colours") == "true")  # fmt: skip
    out = Path(args["out"])
    check_file(out, "out")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = cfg.cache.folder if cfg.cache.enabled else None
    networks = Networks(settings, cfg.memory.device, folder, cfg.cache.gigabytes)
    content = evaluate_folders(sources, settings, networks, out)
    print_figures(content, out)


if __name__ == "__main__":
    guarded(main)
