"""Samples from a finished run and writes the files of each image."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from ragaf_exp.assembly.model import unit_of
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.commands.edit import IMAGE, edit_requests
from ragaf_exp.config.stages import trained
from ragaf_exp.core.edits import RegionEdits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json, write_text
from ragaf_exp.core.types import Example, Regions
from ragaf_exp.data.fit import fit_drawing, fit_image
from ragaf_exp.data.images import read_image, stroke_share, warn_of_odd
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sizes import check_multiple, size_text
from ragaf_exp.evaluation.overlap import check_finite
from ragaf_exp.inference.attention_recorder import record_attention
from ragaf_exp.inference.edit_files import EditFile, read_edits
from ragaf_exp.inference.examples import SKETCH, as_example, read_inputs
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline, SampledImages
from ragaf_exp.inference.recipes.apply import apply
from ragaf_exp.inference.requests import Request
from ragaf_exp.models.model import Model
from ragaf_exp.regions.points import region_points
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import follow
from ragaf_exp.viz.attention_steps import save_attention
from ragaf_exp.viz.grids import comparison
from ragaf_exp.viz.panels import columns, panels, save_png

log = logging.getLogger(__name__)
BATCH = 16


def sample_requests(requests: list[Request], args: dict[str, Any], followed: dict[str, str] | None = None) -> None:
    """Sample every request and write its files.

    Args:
        requests: the images to sample.
        args: the checked arguments of the command line.
        followed: config keys of files or networks that the command line repeats, and their values.
    """
    folder, cfg = RunFolder.read(args["run"], edited=True)  # loading the weights fails if the config does not fit
    cfg = follow(folder, cfg, followed or {})
    for key in ("steps", "guidance", "sketch_guidance", "image_guidance", "scheduler"):
        if key in args:
            OmegaConf.update(cfg, f"sampler.{key}", args[key])
    if "strength" in args:
        cfg.stage[trained(cfg)[-1].name].strength = args["strength"]
    cfg.seed = args.get("seed", 0)
    if IMAGE in requests[0].files:
        return edit_requests(requests, args, folder, *load_run(folder, cfg))
    inputs = [read_inputs(r, args.get("polarity", "auto")) for r in requests]  # all of them, to fail early
    warn_of_odd({r.sketch: stroke_share(i[SKETCH]) for r, i in zip(requests, inputs, strict=True) if r.sketch})
    files = [None if r.edits is None or r.recipe is not None else read_edits(r.edits) for r in requests]
    parts, pipeline = load_run(folder, cfg)
    if not pipeline.has_regions and any(request.edits is not None for request in requests):
        raise UserError(f"edits=: {folder.path} has no stage with regions; train one with stage=both")
    size = args.get("size", (cfg.data.size, cfg.data.size))
    check_multiple(*size, unit_of(cfg, pipeline.last))
    rows = zip(requests, inputs, files, strict=True)
    jobs = [_job(r, i, f, parts, size, args.get("strength")) for r, i, f in rows]
    for some in batches(jobs):
        _sample_batch(some, parts, pipeline, folder, args["attention"], size)


@dataclass(frozen=True)
class Job:
    """A request with its pictures by column and its edits. regions: of its recipe; None: those of its drawing."""

    request: Request
    inputs: dict[str, np.ndarray]
    edits: RegionEdits | None
    regions: Regions | None = None

    @property
    def kept_strength(self) -> float | None:
        """The strength at which a part of an image is sampled again; jobs of one batch share it. None: a whole image."""
        return None if self.edits is None or self.edits.keep is None else self.edits.strength


def _job(
    request: Request, inputs: dict[str, np.ndarray], file: EditFile | None, parts: Parts, size: tuple[int, int],
    strength: float | None,
) -> Job:  # fmt: skip
    """A request with the edits of its recipe or of its file, if it has one."""
    if request.recipe is not None:
        applied = apply(request.recipe, parts.prepare.regions, size)
        return Job(request, inputs, applied.edits, applied.regions)
    return Job(request, inputs, file and region_edits(request, inputs, file, parts, size, strength))


def batches(jobs: list[Job]) -> Iterator[list[Job]]:
    """Yield the jobs in order, in batches that can be sampled together."""
    for _, group in groupby(jobs, lambda job: job.kept_strength):
        some = list(group)
        yield from (some[begin : begin + BATCH] for begin in range(0, len(some), BATCH))


def region_edits(
    request: Request, inputs: Mapping[str, np.ndarray], file: EditFile, parts: Parts, size: tuple[int, int],
    strength: float | None,
) -> RegionEdits:  # fmt: skip
    """Assign a file of edits to the regions of a drawing, before anything is sampled.

    Args:
        request: Names the image to keep, if any.
        inputs: The pictures of the request by column.
        file: The edits.
        parts: The components of the run.
        size: Height and width of the image in pixels.
        strength: Replaces the file's strength.

    Raises:
        UserError: There is no drawing, an edit names no region, or the image to keep does not fit the drawing.
    """
    if (drawing := inputs.get(SKETCH)) is None:
        raise UserError(f"{file.path}: edits need a drawing, whose regions they name; give sketch=FILE")
    keep = None if request.keep is None else kept_image(request.keep, drawing, size)
    return file.resolve(parts.prepare.regions(fit_drawing(drawing, size)), keep, strength)


def kept_image(path: Path, drawing: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Read an image of which a part is sampled again, at the size that is sampled: (H,W,3) uint8.

    Args:
        path: The file.
        drawing: (H,W), which it must have the aspect of, unless it has the size that is sampled.
        size: Height and width of the image in pixels.

    Raises:
        UserError: It can't be read, or its aspect differs.
    """
    image = read_image(path)
    if image.shape[:2] == size:
        return image
    if abs(np.log(drawing.shape[0] * image.shape[1] / drawing.shape[1] / image.shape[0])) > 0.1:
        raise UserError(f"{path}: its aspect differs from the drawing's; give an image sampled from this drawing")
    return fit_image(image, size, "pad")


def _example(job: Job, parts: Parts, size: tuple[int, int]) -> Example:
    example = as_example(job.inputs.get(SKETCH), job.request.prompt, parts, size, job.inputs)
    if job.regions is not None:
        example = replace(example, regions=job.regions, graph=parts.prepare.graph(job.regions))
    return replace(example, edits=job.edits)


def _sample_batch(
    jobs: list[Job], parts: Parts, pipeline: Pipeline, folder: RunFolder, attention: bool, size: tuple[int, int]
) -> None:
    began, requests = time.monotonic(), [job.request for job in jobs]
    examples = [_example(job, parts, size) for job in jobs]
    prepared = time.monotonic()
    model = pipeline.last
    with record_attention(model, parts.diffusion) if attention else nullcontext() as recorder:
        generated = pipeline(collate(examples))
    for images in generated.images.values():
        check_finite(images.float().cpu().numpy(), [request.name for request in requests])
    sampled = generated.to_images()
    done = time.monotonic()
    timings = {"prepare_s": round(prepared - began, 3), "sample_s": round(done - prepared, 3), "batch": len(requests)}
    for row, (request, example) in enumerate(zip(requests, examples, strict=True)):
        write_files(request, example, sampled, row, parts, pipeline, {"run": str(folder.path), **timings})
        if recorder is not None:
            save_attention(request.out, example, recorder.frames(), row, model.text, parts.codec)


def write_files(
    request: Request, example: Example, sampled: SampledImages, row: int, parts: Parts, pipeline: Pipeline,
    facts: dict[str, Any],
) -> None:  # fmt: skip
    """Write the task's panels, every stage's image, attention and comparison as PNG, prompt.txt and, last, result.json.

    Args:
        request: The request, with its output folder.
        example: The prepared sketch and prompt.
        sampled: The samples of the batch.
        row: The index of the request in the batch.
        parts: The components of the run.
        pipeline: The pipeline that sampled.
        facts: Further entries of result.json.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    model = pipeline.last
    images = panels(example, sampled, row, model.text, parts.task.panels)
    shown = {name: images[name] for name in columns(parts.task.panels) if name in images}
    images["comparison"] = comparison(shown, example.item.caption)
    for name, picture in images.items():
        save_png(request.out / f"{name}.png", picture)
    write_text(request.out / "prompt.txt", request.prompt + "\n")
    cfg = parts.cfg
    height, width = example.sketch.shape
    size = height if height == width else size_text(height, width)
    settings = {"seed": cfg.seed, "strength": trained(cfg)[-1].settings["strength"], "size": size,
                **{k: v for k, v in cfg.sampler.items() if not k.startswith("_")}}  # fmt: skip
    files = {SKETCH: request.sketch, **request.files}
    named = {name: str(path) for name, path in files.items() if path is not None}
    result = {"schema": 1, **named, "prompt": request.prompt, **settings,
              "regions": example.regions.count, "unknown_words": model.text.unknown_words(request.prompt),
              "region_points": region_points(example.regions.labels, example.regions.count),
              **edit_facts(example.edits, model), **facts}  # fmt: skip
    write_json(request.out / "result.json", result)


def edit_facts(edits: RegionEdits | None, model: Model) -> dict[str, Any]:
    """Describe the edits of a drawing for result.json, and warn of words that the prompts lose."""
    if edits is None:
        return {}
    rows = []
    for index, edit in enumerate(edits.regions):
        known, left_out = model.text.known_part(edit.prompt)
        if left_out:
            effect = f"reads {known!r}" if known else "reads the caption"
            log.warning(
                "region %d: left out of its prompt, as unknown to the run: %s; it %s", index, ", ".join(left_out), effect
            )
        rows.append({"region": index, **asdict(edit), "read": known, "left_out": left_out, "redo": index in edits.redo})
    return {"edits": rows}
