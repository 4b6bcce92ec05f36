"""Edits an image by the task of a run, or by RePaint with a run that has no such task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.commands.edit import Job as EditJob
from ragaf_exp.commands.edit import edited, make_repaint
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.images import read_drawing
from ragaf_exp.data.sizes import size_text
from ragaf_exp.data.uploads import read_rgb
from ragaf_exp.inference.composite import Picture, crop_around
from ragaf_exp.inference.recipes import ImageRecipe
from ragaf_exp.inference.requests import Request
from ragaf_exp.studio.events import Report
from ragaf_exp.studio.loaded import Loaded
from ragaf_exp.studio.observe import Steps

WHITE = 127  # grey level above which a pixel of the mask is painted


@dataclass(frozen=True)
class Edit:
    """The result of an edit."""

    image: np.ndarray  # (H,W,3) or, with alpha, (H,W,4) uint8, of the size of the given one
    frames: list[bytes]  # PNGs of the steps, of the window that was sampled
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
    job = _job(run, recipe)
    if not run.takes_image:
        pipeline.sampler = make_repaint(parts, _repaint(recipe))
    report("started", steps=0)
    steps = Steps(pipeline.codec, report, stopped, details)
    result = edited(job, {"feather": recipe.feather}, parts, pipeline, steps)
    alpha = job.picture.alpha
    changed = round(float((result != job.picture.rgb).any(-1).mean()), 4)
    image = result if alpha is None else np.dstack([result, alpha])
    return Edit(image, steps.frames, round(time.perf_counter() - began, 3), changed)


def _repaint(recipe: ImageRecipe) -> dict[str, Any]:
    """The arguments of RePaint that the recipe sets."""
    values = {"steps": recipe.settings.steps, "resamplings": recipe.resamplings}
    return {key: value for key, value in values.items() if value is not None}


def _job(run: Loaded, recipe: ImageRecipe) -> EditJob:
    """The image and its mask, in the form of the command line's edits."""
    rgb, alpha = read_rgb(recipe.image, "image")
    mask = _mask(recipe, rgb.shape) if run.takes_mask else None
    where = np.ones(rgb.shape[:2], bool) if mask is None else mask
    crop = crop_around(where, run.cfg.data.size, recipe.context, mask is None)
    drawing = None if recipe.sketch is None else read_drawing("sketch", content=recipe.sketch)
    request = Request(None, recipe.caption, Path("image"))
    return EditJob(request, Picture(rgb, alpha, None), mask, "white", crop, {}, drawing)


def _mask(recipe: ImageRecipe, shape: tuple[int, ...]) -> np.ndarray:
    """(H,W) bool, True = painted again."""
    if recipe.mask is None:
        raise UserError("recipe: mask: missing; paint over what should change")
    mask, _ = read_rgb(recipe.mask, "mask")
    if mask.shape != shape:
        raise UserError(f"recipe: mask: is {size_text(*mask.shape[:2])}, and the image is {size_text(*shape[:2])}")
    hole = mask.mean(-1) > WHITE
    if not hole.any():
        raise UserError("recipe: mask: is empty; paint over what should change")
    return hole
