"""Edits an image file with a trained run: a crop around the hole is sampled and pasted back at full resolution.

A run whose task takes no image inpaints by RePaint instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from omegaconf import DictConfig

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.files import write_json, write_text
from ragaf_exp.core.types import Example
from ragaf_exp.data.images import read_image
from ragaf_exp.data.loader import collate
from ragaf_exp.data.masks.read import read_mask
from ragaf_exp.diffusion.repaint import Calls, RePaint
from ragaf_exp.evaluation.overlap import check_finite
from ragaf_exp.inference.composite import Crop, Picture, check_sizes, crop_around, painted_pixels, read_picture
from ragaf_exp.inference.examples import SKETCH, as_example, number_arrays, read_inputs
from ragaf_exp.inference.pipeline import Pipeline, StageWatch
from ragaf_exp.inference.repainting import IMAGE, MASK, make_repaint
from ragaf_exp.inference.requests import Request
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.tasks.remove import PAINTED
from ragaf_exp.viz.grids import comparison
from ragaf_exp.viz.panels import save_png

log = logging.getLogger(__name__)
OUTLINE = (255, 0, 200)


@dataclass(frozen=True)
class Job:
    """An image to edit, and the window in which it is edited."""

    request: Request
    picture: Picture
    mask: np.ndarray | None  # (H,W) bool, True = hole
    assumed: str  # how the mask was understood
    crop: Crop
    others: Mapping[str, np.ndarray]  # of the task's other columns: pictures (h,w,3) uint8 and numbers (n,)
    drawing: np.ndarray | None = None  # (H,W) in [0,1], in place of the request's file

    @property
    def empty(self) -> bool:
        """Whether there is nothing to paint."""
        return self.mask is not None and not self.mask.any()


def edit_requests(
    requests: list[Request], args: dict[str, Any], folder: RunFolder, parts: Parts, pipeline: Pipeline
) -> None:
    """Edit the image of every request and write its files.

    Args:
        requests: The requests, each with an image and, where the task has a hole, a mask.
        args: The checked arguments of the command line.
        folder: The run folder.
        parts: The components of the run.
        pipeline: Its sampling pipeline.
    """
    for request in requests:
        parts.task.select(args.get("task", ""), request.files)
    jobs = [read_job(request, args, parts.cfg) for request in requests]  # all of them, to fail early
    repaint = None
    if IMAGE not in parts.task.columns or "resamplings" in args:
        repaint = make_repaint(parts, args)
        pipeline.sampler = repaint
    for job in jobs:
        began = time.monotonic()
        if repaint is not None:
            repaint.calls = Calls()
        result = job.picture.rgb if job.empty else edited(job, args, parts, pipeline)
        seconds = round(time.monotonic() - began, 3)
        write_edit(job, result, {"run": str(folder.path), "seed": parts.cfg.seed, "sample_s": seconds,
                                 **parts.task.facts(job.picture.rgb, result), **calls_of(repaint)})  # fmt: skip


def read_job(request: Request, args: dict[str, Any], cfg: DictConfig) -> Job:
    """Read the pictures of a request. Raises UserError.

    Args:
        request: The request.
        args: hole, context and crop are used.
        cfg: The config of the run.

    Returns:
        The job.
    """
    picture, mask, assumed = read_picture(request.files[IMAGE]), None, ""
    if MASK in request.files:
        read = read_mask(request.files[MASK], args.get("hole", "auto"))
        check_sizes(picture.rgb, read.hole, request.files[IMAGE], request.files[MASK])
        mask, assumed = read.hole, read.assumed
        if not mask.any():
            log.info("%s: the mask is empty; the image stays as it is", request.files[MASK])
    whole = mask is None or args.get("crop") == "whole"
    where = np.ones(picture.rgb.shape[:2], bool) if mask is None else mask
    crop = crop_around(where, cfg.data.size, args.get("context", 0.5), whole)
    others = {name: read_image(path) for name, path in request.files.items() if name not in (IMAGE, MASK)}
    return Job(request, picture, mask, assumed, crop, others | number_arrays(request))


def edited(
    job: Job, args: dict[str, Any], parts: Parts, pipeline: Pipeline, watch: StageWatch | None = None
) -> np.ndarray:
    """Sample the window of a job and put the result back.

    Args:
        job: The job.
        args: feather and polarity are used.
        parts: The components of the run.
        pipeline: Its sampling pipeline.
        watch: Called with the number of the stage and the step after each; it may raise Stopped.

    Returns:
        (H,W,3) uint8 at the image's size.
    """
    example = _example(job, args, parts)
    sampled = pipeline(collate([example]), watch)
    for images in sampled.images.values():
        check_finite(images.float().cpu().numpy(), [job.request.name])
    result, picture = sampled.to_images().final[0], job.picture.rgb
    if job.mask is None:
        return parts.task.full_resolution(picture, job.crop.image(picture), result)
    painted = painted_pixels(job.mask, example.conditions.get(PAINTED), job.crop)
    return job.crop.paste(picture, result, painted, args.get("feather", 0.0))


def _example(job: Job, args: dict[str, Any], parts: Parts) -> Example:
    """The example that the model sees: the window, its hole, the prompt and the sketch."""
    inputs = {IMAGE: job.crop.image(job.picture.rgb), **job.others}
    if job.mask is not None:
        inputs[MASK] = job.crop.hole(job.mask).astype(np.float32)
    request, drawing = job.request, job.drawing
    if drawing is None and request.sketch is not None:
        drawing = read_inputs(Request(request.sketch, "", request.out), args.get("polarity", "auto"))[SKETCH]
    return as_example(drawing, request.prompt, parts, (job.crop.size, job.crop.size), inputs)


def write_edit(job: Job, result: np.ndarray, facts: dict[str, Any]) -> None:
    """Write result.png, with the image's alpha and colour profile, comparison.png, prompt.txt and result.json.

    Args:
        job: The job.
        result: (H,W,3) uint8.
        facts: Further entries of result.json.
    """
    out, crop = job.request.out, job.crop
    out.mkdir(parents=True, exist_ok=True)
    job.picture.with_rgb(result).save(out / "result.png")
    shown = {"image": _outlined(job), "result": result}
    save_png(out / "comparison.png", comparison(shown, job.request.prompt))
    write_text(out / "prompt.txt", job.request.prompt + "\n")
    files = {name: str(path) for name, path in job.request.files.items()}
    window = {"top": crop.top, "left": crop.left, "side": crop.side, "size": crop.size}
    write_json(out / "result.json", {"schema": 1, **files, "prompt": job.request.prompt, "mask_read_as": job.assumed,
                                     "crop": window, **facts})  # fmt: skip


def calls_of(repaint: RePaint | None) -> dict[str, Any]:
    """The number of RePaint's passes of the denoiser, and its settings."""
    if repaint is None:
        return {}
    return {"steps": repaint.steps, "jump": repaint.jump, "resamplings": repaint.resamplings,
            "denoisings": repaint.calls.denoisings, "renoisings": repaint.calls.renoisings}  # fmt: skip


def _outlined(job: Job) -> np.ndarray:
    """The image with the outline of the hole."""
    picture = job.picture.rgb.copy()
    if job.mask is not None:
        contours, _ = cv2.findContours(job.mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, OUTLINE, max(1, min(picture.shape[:2]) // 200))
    return picture
