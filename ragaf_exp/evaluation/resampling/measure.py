"""The figures of a run that inpaints test items, with and without RePaint's resampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from eval.metrics.holes import psnr_hole
from eval.rivals.holes import FILLS
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.core.types import Example
from ragaf_exp.data.buckets import batches_of
from ragaf_exp.data.loader import Examples
from ragaf_exp.data.masks.generate import WIDTHS, Masks
from ragaf_exp.evaluation.editing.study import Images, Study, Values, markdown
from ragaf_exp.evaluation.readers import readers
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.repainting import make_repaint
from ragaf_exp.runs import data_record
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import check_followed, follow
from ragaf_exp.tasks.holes import GIVEN, HOLE, hidden

METRIC = "psnr_hole"


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    items: int  # test items, from the first
    masks: str  # kind of generated masks
    widths: Sequence[str]  # of the masks: thin, medium, thick
    resamplings: Sequence[int]  # RePaint's r; 1 = none
    steps: int  # noise levels of one descent
    jump: int  # levels climbed at once
    drop: Sequence[str] = ()  # conditions that are left out


def measure_run(run: Path, out: Path, plan: Plan, followed: dict[str, str]) -> str:
    """Sample and score the first test items under each kind of hole, and write the figures.

    Args:
        run: The run's folder.
        out: The JSON file.
        plan: What is measured.
        followed: Config keys that name files or networks, which the command line repeats, and their values.

    Returns:
        The figures as a Markdown table.

    Raises:
        UserError: A value of the plan is not allowed.
    """
    folder, cfg = RunFolder.read(run)
    cfg = follow(folder, cfg, followed)
    check_followed(folder, cfg, ("data",))
    parts, pipeline = load_run(folder, cfg)
    names = [condition.name for condition in parts.task.conditions if condition.name != "image"]
    if unknown := set(plan.drop) - set(names):
        raise UserError(f"drop={sorted(unknown)[0]}: must be one of {', '.join(names)}")
    if wrong := set(plan.widths) - WIDTHS.keys():
        raise UserError(f"widths={sorted(wrong)[0]}: must be one of {', '.join(WIDTHS)}")
    generators = {width: Masks(plan.masks, width) for width in plan.widths}
    data_record.check(folder.path, parts.source)
    items = Examples(parts.source.split("test"), parts.prepare).first(plan.items)
    study = Study(parts, pipeline, [replace(e, absent=frozenset(plan.drop)) for e in items], readers(cfg, parts)[0])
    for width, masks in generators.items():
        measure_width(study, plan, width, [with_hole(example, masks) for example in study.examples])
    write_json(out, {"schema": 1, "run": str(folder.path), **asdict(plan), "figures": study.figures})
    return markdown(study.figures)


def measure_width(study: Study, plan: Plan, width: str, examples: Sequence[Example]) -> None:
    """Add the figures of one width of holes: of the fills without a network, of the run, and of RePaint.

    Args:
        study: The run and its figures.
        plan: What is measured.
        width: Of the holes.
        examples: The items with their holes.
    """
    for name, fill in FILLS.items():
        images = [fill(e.conditions[GIVEN], e.conditions[HOLE] > 0) for e in examples]
        study.add(f"{width}/{name}/{METRIC}", f"{width} holes, {name}", _values(images, examples))
    if HOLE in study.parts.task.maps:
        images = study.sample(examples, f"{width} holes")
        calls = study.pipeline.sampler.steps
        study.add(f"{width}/run/{METRIC}", f"{width} holes, the run, {calls} steps a stage", _values(images, examples))
    before: Values | None = None
    for resamplings, images, calls in repainted(study, plan, width, examples):
        values = _values(images, examples)
        meaning = f"{width} holes, {resamplings} passes, {calls:g} calls"
        study.add(f"{width}/resamplings_{resamplings}/{METRIC}", meaning, values)
        study.figures[f"{width}/resamplings_{resamplings}/{METRIC}"]["calls"] = calls
        if before is not None:
            name = f"{width}/resamplings_{resamplings}_against_{plan.resamplings[0]}/{METRIC}"
            study.add_difference(name, f"the same, less {plan.resamplings[0]} passes", before, values)
        before = values if before is None else before


def repainted(
    study: Study, plan: Plan, width: str, examples: Sequence[Example]
) -> Iterator[tuple[int, Images, float]]:
    """Sample by RePaint with each number of resamplings.

    Args:
        study: The run.
        plan: What is measured.
        width: Of the holes.
        examples: The items with their holes.

    Yields:
        The number of passes, the images, and the calls of the denoiser for each image.
    """
    pipeline, before = study.pipeline, study.pipeline.sampler
    batches = len(list(batches_of([e.item.image.shape for e in examples], study.parts.cfg.eval.batch)))
    for resamplings in plan.resamplings:
        repaint = make_repaint(study.parts, {"steps": plan.steps, "jump": plan.jump, "resamplings": resamplings})
        pipeline.sampler = repaint
        images = study.sample(examples, f"{width} holes, {resamplings} passes")
        pasted = [_pasted(*pair) for pair in zip(images, examples, strict=True)]
        yield resamplings, pasted, repaint.calls.denoisings / batches
    pipeline.sampler = before


def with_hole(example: Example, masks: Masks) -> Example:
    """An example under a generated hole, a function of the item and the masks."""
    image = example.item.image
    hole = masks(example.item.key, *image.shape[:2]).astype(np.float32)
    return replace(example, conditions={GIVEN: hidden(image, hole), HOLE: hole})


def _pasted(image: np.ndarray, example: Example) -> np.ndarray:
    """An image (H,W,3) uint8 with the given pixels outside the hole."""
    return np.where(example.conditions[HOLE][..., None] > 0, image, example.conditions[GIVEN])


def _values(images: Images, examples: Sequence[Example]) -> Values:
    return [[psnr_hole(image, e.item.image, e.conditions[HOLE] > 0)] for image, e in zip(images, examples, strict=True)]
