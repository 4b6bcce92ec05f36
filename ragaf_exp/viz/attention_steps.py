"""Attention over the timesteps: a grid of attention maps per word, and an animation with the attention of each region."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image

from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.types import Example
from ragaf_exp.inference.attention_recorder import AttentionFrame
from ragaf_exp.inference.pipeline import to_uint8
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.text.tiny import TinyText
from ragaf_exp.viz.attention import attention_frames
from ragaf_exp.viz.grids import PAPER, captioned, grid
from ragaf_exp.viz.panels import by_word, save_png
from ragaf_exp.viz.regions import region_overlay

ROWS, FRAMES, WORDS = 6, 10, 10  # the most timesteps in the grid and in the animation, and words
CELL, PAUSE = 128, 500  # px per cell; ms per frame
STOP_WORDS = ("a", "an", "the", "of", "on", "with", "and", "background", ",", ".")  # words that name no object


@dataclass(frozen=True)
class AttentionStep:
    """The attention of one item at one timestep."""

    t: int
    image: np.ndarray  # (H,W,3) uint8, the prediction of x_0
    maps: np.ndarray  # (words,H,W) float32: share of each pixel's attention that a word gets
    regions: np.ndarray  # (N,words): mean over the pixels of each region


def steps_of_item(
    example: Example, frames: Sequence[AttentionFrame], row: int, text: TinyText, codec: Codec
) -> tuple[list[str], list[AttentionStep]]:
    """One item's attention from the recorded frames of a batch.

    Args:
        example: The item.
        frames: The recorded frames, by timestep.
        row: The index of the item in the batch.
        text: The text encoder, which maps tokens to words.
        codec: Decodes the predictions of x_0.

    Returns:
        The words of the caption, and one step per frame.
    """
    words: list[str] = []
    steps = []
    for frame in frames:
        of_item = frame.attention[row].numpy()  # (T,h,w)
        flat = of_item.reshape(len(of_item), -1).T  # (h w,T), as by_word takes regions
        words, shares = by_word(example.item.caption, flat, text)
        height, width = example.sketch.shape
        maps = [cv2.resize(share.reshape(of_item.shape[1:]).astype(np.float32), (width, height)) for share in shares.T]
        maps = np.stack(maps) if maps else np.zeros((0, height, width), np.float32)
        image = to_uint8(codec.decode(frame.x0[row : row + 1]))[0]
        steps.append(AttentionStep(frame.t, image, maps, region_means(maps, example.regions.labels, example.regions.count)))
    return words, steps


def region_means(maps: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean of maps over each region.

    Args:
        maps: (K,H,W) values.
        labels: (H,W) region index per pixel, -1 for none.
        count: The number of regions.

    Returns:
        (count,K) means; 0 for a region without pixels.
    """
    inside = labels >= 0
    pixels = np.bincount(labels[inside], minlength=count)
    sums = [np.bincount(labels[inside], values[inside], minlength=count) for values in maps]
    return (np.stack(sums, 1) if sums else np.zeros((count, 0))) / np.maximum(pixels, 1)[:, None]


def select_words(words: Sequence[str], steps: Sequence[AttentionStep]) -> list[int]:
    """Indices of the words to show: those that name an object, and of more than WORDS the most attended."""
    named = [i for i, word in enumerate(words) if word.lower() not in STOP_WORDS] or list(range(len(words)))
    peak = {i: max(float(s.maps[i].max()) for s in steps) for i in named}
    return sorted(sorted(named, key=lambda i: -peak[i])[:WORDS])


def attention_grid(words: Sequence[str], steps: Sequence[AttentionStep]) -> np.ndarray:
    """A grid with timesteps from noise to image as rows, x_0 and the words as columns; (h,w,3) uint8."""
    shown = select_words(words, steps)
    rows = [_cells(s, shown, _peaks(steps)) for s in subsample(steps, ROWS)]
    return grid(
        rows, ["image so far", *(words[i] for i in shown)], [f"timestep {s.t}" for s in subsample(steps, ROWS)], CELL
    )


def animation(example: Example, words: Sequence[str], steps: Sequence[AttentionStep]) -> list[np.ndarray]:
    """Animate the attention over the timesteps.

    Args:
        example: The item, with its regions.
        words: The words of its caption.
        steps: Its attention, by timestep.

    Returns:
        (h,w,3) uint8 frames: x_0 and the map of each word, above the attention of each region.
    """
    shown, overlay = select_words(words, steps), region_overlay(example.sketch, example.regions, example.graph)
    top = max(float(s.regions.max(initial=0.0)) for s in steps)
    chosen = subsample(steps, FRAMES)
    regions = [(f"timestep {step.t}: {example.item.caption}", step.regions) for step in chosen]
    frames = []
    for step, below in zip(chosen, attention_frames(words, regions, overlay, example.regions.labels, top), strict=True):
        above = grid([_cells(step, shown, _peaks(steps))], ["image so far", *(words[i] for i in shown)], cell=CELL)
        frames.append(_stacked(above, below))
    return frames


def save_attention(
    folder: Path,
    example: Example,
    frames: Sequence[AttentionFrame],
    row: int,
    text: TinyText,
    codec: Codec,
    own: bool = False,
) -> None:
    """Write attention_steps.png and attention.gif of one item; without recorded attention, write nothing.

    Args:
        folder: Where to write the files.
        example: The item.
        frames: The recorded frames of its batch.
        row: The index of the item in the batch.
        text: The text encoder, which maps tokens to words.
        codec: Decodes the predictions of x_0.
        own: Whether the folder belongs to a run folder, as for `write_bytes`.
    """
    if not frames or row >= len(frames[0].attention):  # no attention was recorded
        return
    words, steps = steps_of_item(example, frames, row, text, codec)
    if not words:
        return
    picture = captioned(attention_grid(words, steps), example.item.caption, CELL)
    save_png(folder / "attention_steps.png", picture, own)
    first, *rest = indexed(animation(example, words, steps))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=PAUSE, loop=0)
    write_bytes(folder / "attention.gif", buffer.getvalue(), own)


def indexed(frames: Sequence[np.ndarray]) -> list[Image.Image]:
    """Frames (h,w,3) uint8 as images with one palette of 256 colours, fitted to every third row and column."""
    sheet = Image.fromarray(np.concatenate([frame[::3, ::3] for frame in frames]))
    # median cut, the default, merges the colours of small objects
    palette = sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
    return [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def subsample(steps: Sequence[AttentionStep], count: int) -> list[AttentionStep]:
    """At most `count` evenly spaced steps, including the first and the last."""
    indices = np.unique(np.linspace(0, len(steps) - 1, min(count, len(steps))).round().astype(int))
    return [steps[i] for i in indices]


def _peaks(steps: Sequence[AttentionStep]) -> np.ndarray:
    """(words,) the largest attention of each word over all steps, which scales its maps."""
    return np.maximum(np.max([s.maps.max((1, 2)) for s in steps], axis=0), 1e-6)


def _cells(step: AttentionStep, shown: Sequence[int], peaks: np.ndarray) -> list[np.ndarray]:
    return [step.image, *(_heat(step.image, step.maps[i] / peaks[i]) for i in shown)]


def _heat(image: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A heat map (H,W) in [0,1] over the image in grey."""
    size = (CELL, CELL * image.shape[0] // image.shape[1])
    grey = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST).mean(-1, keepdims=True)
    colours = 255 * matplotlib.colormaps["magma"](cv2.resize(share, size, interpolation=cv2.INTER_LINEAR))[..., :3]
    return np.rint(0.75 * colours + 0.25 * grey).astype(np.uint8)


def _stacked(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    width = max(above.shape[1], below.shape[1])
    sides = [((0, 0), (0, width - part.shape[1]), (0, 0)) for part in (above, below)]
    return np.vstack([np.pad(p, s, constant_values=PAPER[0]) for p, s in zip((above, below), sides, strict=True)])
