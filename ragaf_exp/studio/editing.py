"""Edits an image by the task of a run, or by RePaint with a run that has no such task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.commands.edit import IMAGE, MASK, edited, make_repaint
from ragaf_exp.commands.edit import Job as EditJob
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.printable import printable
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sizes import size_text
from ragaf_exp.data.uploads import read_rgb
from ragaf_exp.evaluation.overlap import check_finite
from ragaf_exp.inference.composite import Picture, crop_around
from ragaf_exp.inference.examples import as_example
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.inference.recipes import ImageRecipe
from ragaf_exp.inference.requests import Request
from ragaf_exp.studio.edit_kinds import OBJECT, EditKind
from ragaf_exp.studio.events import Report
from ragaf_exp.studio.loaded import Loaded
from ragaf_exp.studio.observe import Frame, Steps
from ragaf_exp.studio.sampling import KEY

WHITE = 127  # grey level above which a pixel of the mask is painted


@dataclass(frozen=True)
class Edit:
    """The result of an edit."""

    image: np.ndarray  # (H,W,3) or, with alpha, (H,W,4) uint8, of the size of the given one
    frames: list[Frame]  # of the window that was sampled
    seconds: float
    changed: float  # share of pixels


def edit_image(run: Loaded, recipe: ImageRecipe, report: Report, stopped: Callable[[], bool], details: bool) -> Edit:
    """Edit an image.

    Args:
        run: The run.
        recipe: The image, its mask and the settings.
        report: Adds an event to the job.
        stopped: Whether the job has been stopped; asked at every step.
        details: Record pictures of the steps.

    Raises:
        UserError: The picture and the mask don't fit, or the run can't do this.
        Stopped: The job has been stopped.
    """
    began = time.perf_counter()
    parts, pipeline = run.with_settings(recipe.settings)
    kind, pictures = _kind(run, recipe), _pictures(recipe)
    if kind.name:
        parts.task.select(kind.name, pictures)
    if not kind.trained:
        pipeline.sampler = make_repaint(parts, _repaint(recipe))
    report("started", steps=0)
    steps = Steps(pipeline.codec, report, stopped, details)
    given, alpha = pictures[IMAGE], read_rgb(recipe.image, IMAGE)[1]
    if kind.column == IMAGE:
        result = edited(_job(run, recipe, kind, pictures), {"feather": recipe.feather}, parts, pipeline, steps)
    else:
        result, alpha = _sampled(run, recipe, {kind.column: given}, parts, pipeline, steps), None
    changed = round(float((result != given).any(-1).mean()), 4) if result.shape == given.shape else 1.0
    image = result if alpha is None else np.dstack([result, alpha])
    return Edit(image, steps.frames, round(time.perf_counter() - began, 3), changed)


def _kind(run: Loaded, recipe: ImageRecipe) -> EditKind:
    """The kind of edit that a recipe names; without a name the first."""
    if not recipe.task:
        return run.edits[0]
    named = next((kind for kind in run.edits if kind.name == recipe.task), None)
    if named is None:
        names = [kind.name for kind in run.edits if kind.name]
        listed = f"must be one of {', '.join(names)}" if names else "this run has one task; leave it out"
        raise UserError(f"recipe: task={printable(recipe.task)}: {listed}")
    return named


def _pictures(recipe: ImageRecipe) -> dict[str, np.ndarray]:
    """The pictures of a recipe by column, (H,W,3) uint8."""
    contents = {IMAGE: recipe.image, MASK: recipe.mask, OBJECT: recipe.object}
    return {name: read_rgb(content, name)[0] for name, content in contents.items() if content is not None}


def _sampled(
    run: Loaded, recipe: ImageRecipe, pictures: dict[str, np.ndarray], parts: Parts, pipeline: Pipeline, steps: Steps
) -> np.ndarray:
    """Sample an image at the size of the run, from a picture that is not itself edited, such as a painting."""
    example = as_example(None, recipe.caption, parts, run.size, pictures)
    sampled = pipeline(collate([example]), steps)
    for images in sampled.images.values():
        check_finite(images.float().cpu().numpy(), [KEY])
    return sampled.to_images().final[0]


def _repaint(recipe: ImageRecipe) -> dict[str, Any]:
    """The arguments of RePaint that the recipe sets."""
    values = {"steps": recipe.settings.steps, "resamplings": recipe.resamplings}
    return {key: value for key, value in values.items() if value is not None}


def _job(run: Loaded, recipe: ImageRecipe, kind: EditKind, pictures: dict[str, np.ndarray]) -> EditJob:
    """The pictures of a recipe, in the form of the command line's edits."""
    rgb = pictures[IMAGE]
    mask = _mask(pictures.get(MASK), rgb.shape) if kind.mask else None
    if kind.object and OBJECT not in pictures:
        raise UserError("recipe: object: missing; choose a picture of what is inserted")
    where = np.ones(rgb.shape[:2], bool) if mask is None else mask
    crop = crop_around(where, run.cfg.data.size, recipe.context, mask is None)
    drawing = None if recipe.sketch is None else read_drawing("sketch", content=recipe.sketch)
    others = {OBJECT: pictures[OBJECT]} if kind.object else {}
    request = Request(None, recipe.caption, Path(IMAGE))
    return EditJob(request, Picture(rgb, None, None), mask, "white", crop, others, drawing)


def _mask(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """(H,W) bool, True = painted again."""
    if mask is None:
        raise UserError("recipe: mask: missing; paint over what should change")
    if mask.shape != shape:
        raise UserError(f"recipe: mask: is {size_text(*mask.shape[:2])}, and the image is {size_text(*shape[:2])}")
    hole = mask.mean(-1) > WHITE
    if not hole.any():
        raise UserError("recipe: mask: is empty; paint over what should change")
    return hole
