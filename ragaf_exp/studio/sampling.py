"""Samples an image from a drawing's recipe, and reports everything that happens on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, OBJECT_COLOURS, nearest_colour
from ragaf_exp.data.uploads import png
from ragaf_exp.evaluation.overlap import check_finite
from ragaf_exp.inference.attention_recorder import record_attention
from ragaf_exp.inference.pipeline import Pipeline, SampledImages
from ragaf_exp.inference.recipes import SketchRecipe
from ragaf_exp.inference.recipes.apply import Applied, apply, strokes_of
from ragaf_exp.studio.attention import TimedAttention, Words, described, read_words, rounded
from ragaf_exp.studio.events import Picture, Report
from ragaf_exp.studio.loaded import Loaded
from ragaf_exp.studio.observe import Frame, RegionRecord, Steps, record_regions

KEY = "sample"  # of every item that is sampled by hand: the same drawing, words and seed give the same image


@dataclass
class Result:
    """The result of a job."""

    recipe: SketchRecipe
    applied: Applied
    example: Example
    sampled: SampledImages
    seconds: float
    parts: Parts
    pipeline: Pipeline
    words: Words | None = None
    frames: list[Frame] = field(default_factory=list)
    attention: list[TimedAttention] = field(default_factory=list)  # of the pixels, in the last stage

    @property
    def image(self) -> np.ndarray:
        """(H,W,3) uint8."""
        return self.sampled.final[0]

    @property
    def colours(self) -> list[str]:
        """The name of the palette colour that is nearest to most pixels of each region of the recipe, for descriptions."""
        names = nearest_colour(self.image, OBJECT_COLOURS | BACKGROUND_COLOURS)
        labels, count = self.recipe.labels, int(self.recipe.labels.max(initial=-1)) + 1
        listed = (np.unique(names[labels == region], return_counts=True) for region in range(count))
        return [str(values[counts.argmax()]) if len(values) else "" for values, counts in listed]

    @property
    def changed(self) -> float | None:
        """The share of pixels that differ from the image of which a part was sampled again; None for a whole image."""
        if self.recipe.keep is None:
            return None
        return round(float((self.image != self.recipe.keep).any(-1).mean()), 4)


def sample(run: Loaded, recipe: SketchRecipe, report: Report, stopped: Callable[[], bool], details: bool) -> Result:
    """Sample an image.

    Args:
        run: The run.
        recipe: The recipe, of the size of the run.
        report: Adds an event to the job.
        stopped: Whether the job has been stopped; asked at every step.
        details: Record pictures of the steps, attention and fusion.

    Returns:
        The image and what was recorded.

    Raises:
        UserError: The recipe does not fit the run.
        Stopped: The job has been stopped.
    """
    began = time.perf_counter()
    parts, pipeline = run.with_settings(recipe.settings)
    applied = apply(recipe, parts.prepare.regions, run.size)
    example = example_of(parts, recipe, applied)
    report("started", steps=_expected_steps(pipeline, recipe))
    steps = Steps(pipeline.codec, report, stopped, details)
    model = pipeline.last
    with ExitStack() as stack:
        recorder = stack.enter_context(record_attention(model, parts.diffusion)) if details else None
        record = stack.enter_context(record_regions(model)) if details else None
        sampled = pipeline(collate([example]), steps)
    for images in sampled.images.values():
        check_finite(images.float().cpu().numpy(), [KEY])
    result = Result(recipe, applied, example, sampled.to_images(), 0.0, parts, pipeline, frames=steps.frames)
    _report_stages(result, report)
    if recorder is not None and record is not None:
        result.attention = [(frame.t, frame.attention[0].numpy()) for frame in recorder.frames()]
        _report_details(result, record, report)
    result.seconds = round(time.perf_counter() - began, 3)
    return result


def example_of(parts: Parts, recipe: SketchRecipe, applied: Applied) -> Example:
    """Prepare a recipe like an item of the run's data.

    Args:
        parts: The components of the run, with the settings of the recipe.
        recipe: The recipe.
        applied: Its regions and edits.
    """
    sketch, regions = strokes_of(recipe), applied.regions
    item = Item(KEY, np.zeros((*recipe.size, 3), np.uint8), recipe.caption, drawing=sketch)
    return parts.request(Example(item, sketch, regions, parts.prepare.graph(regions), applied.edits), {})


def _expected_steps(pipeline: Pipeline, recipe: SketchRecipe) -> int:
    """Estimate the number of steps of all stages; some schedulers take two per step."""
    scheduler = pipeline.sampler.diffusion.scheduler(pipeline.sampler.scheduler)
    scheduler.set_timesteps(pipeline.sampler.steps)
    whole = len(scheduler.timesteps)
    if recipe.keep is not None:
        return max(1, round(whole * recipe.redo_strength))
    first, *later = pipeline.stages  # the first starts from noise, even one that was trained to start from another
    return whole + sum(max(1, round(whole * stage.spec.strength)) for stage in later)


def _report_stages(result: Result, report: Report) -> None:
    for name, images in result.sampled.images.items():
        report(name, image=Picture(png(images[0])))


def _report_details(result: Result, record: RegionRecord, report: Report) -> None:
    model, applied = result.pipeline.last, result.applied
    edits = result.example.edits
    prompts = [edit.prompt for edit in edits.regions] if edits is not None else []
    result.words = read_words(result.example, prompts, record, model.text)
    report("attention", **described(result.words, result.example, result.attention, model.text, applied))
    if record.fusion:
        weights = np.stack([applied.by_label(one) for one in record.fusion])  # (times,labels,2)
        times = [round(t * model.timesteps) for t in record.times]
        report("fusion", t=times, sketch=rounded(weights[..., 0]), text=rounded(weights[..., 1]))
