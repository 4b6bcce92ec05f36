"""Samples from a finished run and writes the files of each image."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from ragaf_exp.assembly.model import unit_of
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.stages import LAST
from ragaf_exp.core.files import write_json, write_text
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.fit import fit_drawing
from ragaf_exp.data.images import read_drawing, read_image, stroke_share, warn_of_odd
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sizes import check_multiple, size_text
from ragaf_exp.evaluation.overlap import check_finite
from ragaf_exp.inference.attention_recorder import record_attention
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline, SampledImages, stage_images
from ragaf_exp.inference.requests import Request
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import follow
from ragaf_exp.viz.attention_steps import save_attention
from ragaf_exp.viz.grids import comparison
from ragaf_exp.viz.panels import columns, panels, save_png

BATCH = 16
SKETCH = "sketch"  # the column whose files are drawings
NO_INPUTS: Mapping[str, np.ndarray] = {}


def sample_requests(requests: list[Request], args: dict[str, Any], followed: dict[str, str] | None = None) -> None:
    """Sample every request and write its files.

    Args:
        requests: the images to sample.
        args: the checked arguments of the command line.
        followed: config keys of files or networks that the command line repeats, and their values.
    """
    folder, cfg = RunFolder.read(args["run"], edited=True)  # loading the weights fails if the config does not fit
    cfg = follow(folder, cfg, followed or {})
    for key in ("steps", "guidance", "sketch_guidance", "scheduler"):
        if key in args:
            OmegaConf.update(cfg, f"sampler.{key}", args[key])
    if "strength" in args:
        cfg.stage[LAST.name].strength = args["strength"]
    cfg.seed = args.get("seed", 0)
    inputs = [read_inputs(r, args.get("polarity", "auto")) for r in requests]  # all of them, to fail early
    warn_of_odd({r.sketch: stroke_share(i[SKETCH]) for r, i in zip(requests, inputs, strict=True) if r.sketch})
    parts, pipeline = load_run(folder, cfg)
    size = args.get("size", (cfg.data.size, cfg.data.size))
    check_multiple(*size, unit_of(cfg, pipeline.last))
    for begin in range(0, len(requests), BATCH):
        rows = slice(begin, begin + BATCH)
        _sample_batch(requests[rows], inputs[rows], parts, pipeline, folder, args["attention"], size)


def _sample_batch(
    requests: list[Request], inputs: list[dict[str, np.ndarray]], parts: Parts, pipeline: Pipeline, folder: RunFolder,
    attention: bool, size: tuple[int, int],
) -> None:  # fmt: skip
    began = time.monotonic()
    examples = [as_example(i.get(SKETCH), r.prompt, parts, size, i) for i, r in zip(inputs, requests, strict=True)]
    prepared = time.monotonic()
    model = pipeline.last
    with record_attention(model, parts.diffusion) if attention else nullcontext() as recorder:
        generated = pipeline(collate(examples))
    for images in stage_images(generated).values():
        check_finite(images.float().cpu().numpy(), [request.name for request in requests])
    sampled = generated.to_images()
    done = time.monotonic()
    timings = {"prepare_s": round(prepared - began, 3), "sample_s": round(done - prepared, 3), "batch": len(requests)}
    for row, (request, example) in enumerate(zip(requests, examples, strict=True)):
        write_files(request, example, sampled, row, parts, pipeline, {"run": str(folder.path), **timings})
        if recorder is not None:
            save_attention(request.out, example, recorder.frames(), row, model.text, parts.codec)


def read_inputs(request: Request, polarity: str) -> dict[str, np.ndarray]:
    """Read the pictures of a request by column: its sketch (H,W) in [0,1], all others (H,W,3) uint8.

    Raises UserError for a file that cannot be read. polarity: of the sketch, as read_drawing takes it.
    """
    inputs = {name: read_image(path) for name, path in request.files.items()}
    return inputs if request.sketch is None else {SKETCH: read_drawing(request.sketch, polarity), **inputs}


def as_example(
    drawing: np.ndarray | None, prompt: str, parts: Parts, size: tuple[int, int],
    inputs: Mapping[str, np.ndarray] = NO_INPUTS,
) -> Example:  # fmt: skip
    """Prepare a drawing and a prompt like an item of the run's data, with a black image.

    Args:
        drawing: (H,W) float in [0,1], of any size; None where the task does without.
        prompt: The prompt.
        parts: The components of the run.
        size: Height and width of the image in pixels.
        inputs: Pictures of the columns of the run's task.

    Returns:
        The example.
    """
    sketch = np.zeros(size, np.float32) if drawing is None else fit_drawing(drawing, size)
    regions = parts.prepare.regions(sketch)
    # the key seeds the noise: the same sketch, prompt and seed give the same image
    item = Item("sample", np.zeros((*size, 3), np.uint8), prompt, drawing=sketch)
    absent = frozenset() if drawing is not None else frozenset({SKETCH})
    example = Example(item, sketch, regions, parts.prepare.graph(regions), absent=absent)
    return parts.request(example, {name: picture for name, picture in inputs.items() if name != SKETCH})


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
    settings = {"seed": cfg.seed, "strength": LAST.setting(cfg, "strength"), "size": size,
                **{k: v for k, v in cfg.sampler.items() if not k.startswith("_")}}  # fmt: skip
    files = {SKETCH: request.sketch, **request.files}
    named = {name: str(path) for name, path in files.items() if path is not None}
    result = {"schema": 1, **named, "prompt": request.prompt, **settings,
              "regions": example.regions.count, "unknown_words": model.text.unknown_words(request.prompt),
              **facts}  # fmt: skip
    write_json(request.out / "result.json", result)
