"""Measures what a run trained on scenes makes of images of other sizes.

    python -m ragaf_exp.commands.size_survey run=DIR [sizes=64,96,64x96,96x64] [items=200] [out=FILE.json] [picture=FILE]

Samples test scenes at each size (width x height in pixels, or one number for a square), and prints the binding accuracy of
every stage and the sketch fidelity, with 95 % intervals over the scenes. Scenes of one aspect are the same at every size.
items: test scenes per size. out: a JSON file of the figures. picture: a grid of the first scenes. Example:

    python -m ragaf_exp.commands.size_survey run=runs/latest items=20
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from tqdm import tqdm

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.writable import check_file
from ragaf_exp.data.sizes import check_multiple, parse_size, size_text

SIZES, ITEMS, BATCH, SHOWN = "64,96,64x96,96x64", 200, 25, 4
SCENES = "ragaf_exp.data.sources.scenes.Scenes"


def main() -> None:
    args = parse_args(sys.argv[1:], {"run": str, "sizes": str, "items": int, "out": str, "picture": str})
    if not args.get("run"):
        raise UserError("run=: missing; give run=DIR, the folder of a run with data=scenes")
    for key in ("out", "picture"):
        if key in args:
            check_file(Path(args[key]), key)
    if (items := args.get("items", ITEMS)) < 2:
        raise UserError(f"items={items}: must be at least 2; take {ITEMS}")
    sizes = [parse_size(text, "sizes") for text in args.get("sizes", SIZES).strip("[]").split(",")]
    with stub_optional_imports():
        rows, cells = survey(Path(args["run"]), sizes, items)
    if "out" in args:
        write_json(Path(args["out"]), {"schema": 1, "run": args["run"], "sizes": rows})
    if "picture" in args:
        from ragaf_exp.viz.grids import grid
        from ragaf_exp.viz.panels import save_png

        save_png(Path(args["picture"]), grid(cells, [row["size"] for row in rows for _ in range(2)]))


def line(row: dict[str, Any]) -> str:
    """Format the figures of one size."""
    figures = (f"{name} {value['value']:.3f} [{value['ci95'][0]:.3f}, {value['ci95'][1]:.3f}] (n {value['n']})"
               for name, value in row["metrics"].items())  # fmt: skip
    return f"{row['size']:>9}  {'  '.join(figures)}"


def survey(run: Path, sizes: list[tuple[int, int]], items: int) -> tuple[list[dict[str, Any]], list[list[np.ndarray]]]:
    """Sample, score and print test scenes at each size.

    Args:
        run: The run folder.
        sizes: Height and width of each size, in pixels.
        items: Number of scenes per size.

    Returns:
        The figures of each size, and rows of pictures: for each of the first scenes truth and image at every size.

    Raises:
        UserError: The run was not trained on scenes, or its networks do not take one of the sizes.
    """
    from ragaf_exp.assembly.model import unit_of
    from ragaf_exp.config.build import build
    from ragaf_exp.inference.load import load_run
    from ragaf_exp.runs.folder import RunFolder

    folder, cfg = RunFolder.read(str(run), edited=True)
    if cfg.data._target_ != SCENES:
        raise UserError(f"{run}: trained on {cfg.data._target_.rpartition('.')[2]}; this works with data=scenes")
    parts, pipeline = load_run(folder, cfg)
    for size in sizes:
        check_multiple(*size, unit_of(cfg, pipeline.last), "sizes")
    rows, shown = [], []
    for height, width in sizes:
        data = OmegaConf.merge(cfg.data, {"size": height, "width": width, "test": items})
        examples = [parts.prepare(item) for item in build(data, "data").split("test")]
        images = list(_sampled(pipeline, examples, size_text(height, width)))
        rows.append({"size": size_text(height, width), "height": height, "width": width, "items": items,
                     "metrics": _scores(examples, images)})  # fmt: skip
        print(line(rows[-1]), flush=True)
        shown += [[example.item.image for example in examples[:SHOWN]], [final for *_, final in images[:SHOWN]]]
    return rows, [list(row) for row in zip(*shown, strict=True)]


def _sampled(pipeline: Any, examples: list, name: str) -> Iterator[list[np.ndarray]]:
    """The images of each item by the stages that ran, in their order."""
    from ragaf_exp.data.loader import collate

    for start in tqdm(range(0, len(examples), BATCH), desc=name, unit="batch"):
        sampled = pipeline(collate(examples[start : start + BATCH])).to_images()
        stages = list(sampled.images.values())
        yield from (list(images) for images in zip(*stages, strict=True))


def _scores(examples: list, images: list[list[np.ndarray]]) -> dict[str, dict[str, Any]]:
    from eval import scoring
    from eval.edges import ColourCanny
    from eval.statistics.bootstrap import mean_interval
    from ragaf_exp.config.stages import IMAGES

    scores = {}
    for stage, of_stage in enumerate(zip(*images, strict=True), 1):
        scenes = [scoring.bindings(image, e.item) or [] for image, e in zip(of_stage, examples, strict=True)]
        values = [(i, float(b.correct)) for i, scene in enumerate(scenes) for b in scene]
        name = "binding_accuracy" if stage == len(images[0]) else f"{IMAGES[stage - 1]}/binding_accuracy"
        scores[name] = _entry(*mean_interval([v for _, v in values], [i for i, _ in values]), len(values))
    f1 = scoring.sketch_values([e.sketch for e in examples], [final for *_, final in images], ColourCanny())["sketch_f1"]
    return scores | {"sketch_f1": _entry(*mean_interval(f1), len(f1))}


def _entry(value: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {"value": round(value, 4), "ci95": [round(low, 4), round(high, 4)], "n": n}


if __name__ == "__main__":
    guarded(main)
