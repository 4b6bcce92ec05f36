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
from ragaf_exp.studio.sampling import Result
from ragaf_exp.viz.attention import attention_figure
from ragaf_exp.viz.attention_steps import indexed
from ragaf_exp.viz.regions import regions_of

SHORTEST = 256  # px: smaller animations are enlarged
STEP_MS, LAST_MS = 150, 1500  # duration of a frame of the evolution, and of the last one
TYPES = {"png": "image/png", "gif": "image/gif", "webp": "image/webp", "json": "application/json"}
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
    if sampled.stage1 is not None:
        files["stage1.png"] = partial(with_recipe, sampled.stage1[0], recipe)
    if sampled.stage2 is not None:
        files["stage2.png"] = partial(with_recipe, sampled.stage2[0], recipe)
    files |= evolution_files(result.frames)
    if result.words is not None and result.words.words:
        files["attention.png"] = partial(_attention, result)
    labels = np.where(result.recipe.labels < 0, 255, result.recipe.labels).astype(np.uint8)
    return {**files, "labels.png": partial(png, labels), "recipe.json": json.dumps(recipe).encode}


def evolution_files(frames: Sequence[bytes]) -> dict[str, Callable[[], bytes]]:
    """List the animations of a job, of the PNGs of its steps; none without any."""
    if not frames:
        return {}
    return {"evolution.gif": partial(_gif, frames), "evolution.webp": partial(_webp, frames)}


def _enlarged(frames: Sequence[bytes]) -> list[np.ndarray]:
    """The frames at the size of the last one, enlarged without interpolation if that is small: pixels stay sharp."""
    pictures = [Image.open(io.BytesIO(frame)).convert("RGB") for frame in frames]
    width, height = pictures[-1].size
    factor = max(1, SHORTEST // min(height, width))
    size = (width * factor, height * factor)
    return [np.asarray(picture.resize(size, Image.Resampling.NEAREST)) for picture in pictures]


def _durations(count: int) -> list[int]:
    return [STEP_MS] * (count - 1) + [LAST_MS]


def _gif(frames: Sequence[bytes]) -> bytes:
    first, *rest = indexed(_enlarged(frames))
    buffer = io.BytesIO()
    durations = _durations(len(rest) + 1)
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, disposal=1)
    return buffer.getvalue()


def _webp(frames: Sequence[bytes]) -> bytes:
    first, *rest = (Image.fromarray(frame) for frame in _enlarged(frames))
    buffer = io.BytesIO()
    durations = _durations(len(rest) + 1)
    first.save(buffer, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, lossless=True, method=0)
    return buffer.getvalue()


def _attention(result: Result) -> bytes:
    words, example = result.words, result.example
    assert words is not None, "listed only where words were recorded"
    with _DRAWING:
        return png(attention_figure(words.words, words.shares, regions_of(example), example.regions.labels))
