"""Attention over the timesteps as pictures: a grid of word maps, and an animation with the regions' shares of the words."""

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
from ragaf_exp.viz.attention import attention_figure
from ragaf_exp.viz.grids import PAPER, captioned, grid
from ragaf_exp.viz.panels import by_word, save_png
from ragaf_exp.viz.regions import region_overlay

ROWS, FRAMES, WORDS = 6, 10, 10  # timesteps of the grid and of the animation, words at most
CELL, PAUSE = 128, 500  # px; ms a frame
PLAIN = ("a", "an", "the", "of", "on", "with", "and", "background", ",", ".")  # words that name nothing


@dataclass(frozen=True)
class AttentionStep:
    """One timestep of one item."""

    t: int
    image: np.ndarray  # (H,W,3) uint8, the image so far
    maps: np.ndarray  # (words,H,W) float32: share of each pixel's attention
    regions: np.ndarray  # (N,words): the same, mean over each region's pixels


def moments(
    example: Example, frames: Sequence[AttentionFrame], row: int, text: TinyText, codec: Codec
) -> tuple[list[str], list[AttentionStep]]:
    """The caption's words, and what was seen of one row of a watched batch."""
    words: list[str] = []
    found = []
    for frame in frames:
        of_item = frame.words[row].numpy()  # (T,h,w)
        flat = of_item.reshape(len(of_item), -1).T  # (h w,T), as by_word takes regions
        words, shares = by_word(example.item.caption, flat, text)
        height, width = example.sketch.shape
        maps = [cv2.resize(m.reshape(of_item.shape[1:]).astype(np.float32), (width, height)) for m in shares.T]
        maps = np.stack(maps) if maps else np.zeros((0, height, width), np.float32)
        image = to_uint8(codec.decode(frame.x0[row : row + 1]))[0]
        found.append(AttentionStep(frame.t, image, maps, region_means(maps, example.regions.labels, example.regions.count)))
    return words, found


def region_means(maps: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean of maps (K,H,W) over each region of labels (H,W) -> (count,K); a region without pixels has 0."""
    inside = labels >= 0
    pixels = np.bincount(labels[inside], minlength=count)
    sums = [np.bincount(labels[inside], m[inside], minlength=count) for m in maps]
    return (np.stack(sums, 1) if sums else np.zeros((count, 0))) / np.maximum(pixels, 1)[:, None]


def chosen(words: Sequence[str], seen: Sequence[AttentionStep]) -> list[int]:
    """Places of the words to show: those that name something, the most attended where there are too many."""
    named = [i for i, word in enumerate(words) if word.lower() not in PLAIN] or list(range(len(words)))
    peak = {i: max(float(m.maps[i].max()) for m in seen) for i in named}
    return sorted(sorted(named, key=lambda i: -peak[i])[:WORDS])


def attention_grid(words: Sequence[str], seen: Sequence[AttentionStep]) -> np.ndarray:
    """Rows are timesteps from noise to image, columns the image so far and the words; (h,w,3) uint8."""
    shown = chosen(words, seen)
    rows = [_cells(m, shown, _peaks(seen)) for m in subsample(seen, ROWS)]
    return grid(
        rows, ["image so far", *(words[i] for i in shown)], [f"timestep {m.t}" for m in subsample(seen, ROWS)], CELL
    )


def animation(example: Example, words: Sequence[str], seen: Sequence[AttentionStep]) -> list[np.ndarray]:
    """A frame for each timestep: image so far and word maps, above the regions' shares of the words."""
    shown, overlay = chosen(words, seen), region_overlay(example.sketch, example.regions, example.graph)
    top = max(float(m.regions.max(initial=0.0)) for m in seen)
    frames = []
    for moment in subsample(seen, FRAMES):
        above = grid([_cells(moment, shown, _peaks(seen))], ["image so far", *(words[i] for i in shown)], cell=CELL)
        below = attention_figure(
            words, moment.regions, overlay, example.regions.labels, f"timestep {moment.t}: {example.item.caption}", top
        )
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
    """attention_steps.png and attention.gif of one row of a watched batch. own: in a run folder, as for `write_bytes`."""
    if not frames or row >= len(frames[0].words):  # nothing of it was seen
        return
    words, seen = moments(example, frames, row, text, codec)
    if not words:
        return
    picture = captioned(attention_grid(words, seen), example.item.caption, CELL)
    save_png(folder / "attention_steps.png", picture, own)
    first, *rest = indexed(animation(example, words, seen))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=PAUSE, loop=0)
    write_bytes(folder / "attention.gif", buffer.getvalue(), own)


def indexed(frames: Sequence[np.ndarray]) -> list[Image.Image]:
    """(h,w,3) uint8 each -> pictures of 256 colours, the same in all: those of every third row and column."""
    sheet = Image.fromarray(np.concatenate([frame[::3, ::3] for frame in frames]))
    # median cut, the default, gives small coloured objects no colour of their own
    palette = sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)
    return [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def subsample(seen: Sequence[AttentionStep], count: int) -> list[AttentionStep]:
    """At most so many, evenly, the first and the last among them."""
    places = np.unique(np.linspace(0, len(seen) - 1, min(count, len(seen))).round().astype(int))
    return [seen[i] for i in places]


def _peaks(seen: Sequence[AttentionStep]) -> np.ndarray:
    """(words,) the largest share that each word ever gets: its own scale."""
    return np.maximum(np.max([m.maps.max((1, 2)) for m in seen], axis=0), 1e-6)


def _cells(moment: AttentionStep, shown: Sequence[int], peaks: np.ndarray) -> list[np.ndarray]:
    return [moment.image, *(_heat(moment.image, moment.maps[i] / peaks[i]) for i in shown)]


def _heat(image: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A map (H,W) in [0,1] over the picture in grey."""
    size = (CELL, CELL * image.shape[0] // image.shape[1])
    grey = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST).mean(-1, keepdims=True)
    colours = 255 * matplotlib.colormaps["magma"](cv2.resize(share, size, interpolation=cv2.INTER_LINEAR))[..., :3]
    return np.rint(0.75 * colours + 0.25 * grey).astype(np.uint8)


def _stacked(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    width = max(above.shape[1], below.shape[1])
    sides = [((0, 0), (0, width - part.shape[1]), (0, 0)) for part in (above, below)]
    return np.vstack([np.pad(p, s, constant_values=PAPER[0]) for p, s in zip((above, below), sides, strict=True)])
