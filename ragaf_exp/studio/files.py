"""The files of a job's result, made when they are downloaded."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from ragaf_exp.data.uploads import png
from ragaf_exp.inference.recipes import with_recipe
from ragaf_exp.studio.attention import word_maps
from ragaf_exp.studio.observe import Frame
from ragaf_exp.studio.sampling import Result
from ragaf_exp.viz.attention import attention_figure
from ragaf_exp.viz.attention_steps import AttentionStep, animation, indexed, region_means
from ragaf_exp.viz.regions import regions_of

SHORTEST = 256  # px: smaller animations are enlarged
STEP_MS, ATTENTION_MS, LAST_MS = 150, 500, 1500  # of a frame of the evolution, of the attention, and of the last frame
_DRAWING = threading.Lock()  # figures are drawn one at a time: Matplotlib's font cache is not thread-safe


def files_of(result: Result, recipe: dict[str, Any]) -> dict[str, Callable[[], bytes]]:
    """List the files of an image that was made from a drawing.

    Args:
        result: The result.
        recipe: Its recipe as JSON, with arrays packed.

    Returns:
        Name -> a function that makes its content.
    """
    sampled, files = result.sampled, dict[str, Callable[[], bytes]]()
    for name, images in sampled.images.items():
        files[f"{name}.png"] = partial(with_recipe, images[0], recipe)
    files |= evolution_files(result.frames)
    if result.words is not None and result.words.words:
        files["attention.png"] = partial(_attention, result)
    if result.attention:
        files["attention.gif"] = partial(_attention_over_time, result)
    labels = np.where(result.recipe.labels < 0, 255, result.recipe.labels).astype(np.uint8)
    return {**files, "labels.png": partial(png, labels), "recipe.json": json.dumps(recipe).encode}


def evolution_files(frames: Sequence[Frame]) -> dict[str, Callable[[], bytes]]:
    """List the animations of a job's steps; none without any."""
    if not frames:
        return {}
    return {"evolution.gif": partial(_evolution, frames, _gif), "evolution.webp": partial(_evolution, frames, _webp)}


def _evolution(frames: Sequence[Frame], encode: Callable[[list[np.ndarray], int], bytes]) -> bytes:
    return encode(_enlarged(frames), STEP_MS)


def _enlarged(frames: Sequence[Frame]) -> list[np.ndarray]:
    """The frames at the size of the last one, enlarged without interpolation if that is small: pixels stay sharp."""
    pictures = [Image.open(io.BytesIO(frame.content)).convert("RGB") for frame in frames]
    width, height = pictures[-1].size
    factor = max(1, SHORTEST // min(height, width))
    size = (width * factor, height * factor)
    return [np.asarray(picture.resize(size, Image.Resampling.NEAREST)) for picture in pictures]


def _gif(frames: list[np.ndarray], duration: int) -> bytes:
    first, *rest = indexed(frames)
    buffer = io.BytesIO()
    durations = [duration] * len(rest) + [LAST_MS]
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, disposal=1)
    return buffer.getvalue()


def _webp(frames: list[np.ndarray], duration: int) -> bytes:
    first, *rest = (Image.fromarray(frame) for frame in frames)
    buffer = io.BytesIO()
    durations = [duration] * len(rest) + [LAST_MS]
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, lossless=True, method=0)
    return buffer.getvalue()


def _attention_over_time(result: Result) -> bytes:
    """The attention of pixels and regions to the words of the caption at each step of the last stage, next to its image."""
    example, text = result.example, result.pipeline.last.text
    pictures = {frame.t: frame.content for frame in result.frames}  # of the last stage, where both have a timestep
    steps = []
    for t, attention in result.attention:
        words, maps = word_maps(example, attention, text)
        image = np.asarray(Image.open(io.BytesIO(pictures[t]))) if t in pictures else result.image
        means = region_means(maps, example.regions.labels, example.regions.count)
        steps.append(AttentionStep(t, image, maps, means))
    with _DRAWING:
        return _gif(animation(example, words, steps), ATTENTION_MS)


def _attention(result: Result) -> bytes:
    words, example = result.words, result.example
    assert words is not None, "listed only where words were recorded"
    with _DRAWING:
        return png(attention_figure(words.words, words.shares, regions_of(example), example.regions.labels))
