"""Figures of region-to-text attention."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from ragaf_exp.viz.fonts import lettering


def attention_figure(
    words: Sequence[str],
    attention: np.ndarray,
    overlay: np.ndarray,
    labels: np.ndarray | None = None,
    title: str = "",
    top: float | None = None,
) -> np.ndarray:
    """Draw the regions next to a heat map of the words that each region attends to.

    Without regions or words, a text replaces the heat map.

    Args:
        words: The T words of the caption, with sub-tokens merged.
        attention: (N,T) attention of each region to each word, in [0,1].
        overlay: (h,w,3) uint8, the regions painted and numbered.
        labels: (H,W) region index per pixel; gives each row a swatch with its region's colour in the overlay.
        title: A line above the figure.
        top: The attention at which the colour scale ends, by default the largest value.

    Returns:
        (h,w,3) uint8 image.

    Raises:
        ValueError: If the number of words differs from T.
    """
    return next(attention_frames(words, [(title, attention)], overlay, labels, top))


def attention_frames(
    words: Sequence[str],
    frames: Sequence[tuple[str, np.ndarray]],
    overlay: np.ndarray,
    labels: np.ndarray | None = None,
    top: float | None = None,
) -> Iterator[np.ndarray]:
    """Draw `attention_figure` for several attentions of one image. The layout, the slowest part, is that of the first.

    Args:
        words: The T words of the caption, with sub-tokens merged.
        frames: Title and attention (N,T) of each, in [0,1].
        overlay: As for `attention_figure`.
        labels: As for `attention_figure`.
        top: The attention at which the colour scale ends, by default the largest value of all.

    Yields:
        (h,w,3) uint8 images.

    Raises:
        ValueError: If the number of words differs from T.
    """
    count, width = frames[0][1].shape
    if len(words) != width:
        raise ValueError(f"{len(words)} words for attention {(count, width)}: merge sub-tokens first")
    inches = (3.2 + max(2.4, min(0.42, 9.5 / max(width, 1)) * width), max(3.3, 0.27 * count + 1.3))
    figure = Figure(figsize=inches, dpi=110, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    picture, chart = figure.subplots(1, 2, width_ratios=[3.0, inches[0] - 3.0])
    picture.imshow(overlay, interpolation="nearest")
    picture.set_axis_off()
    top = max(max(float(attention.max(initial=0.0)) for _, attention in frames) if top is None else top, 1e-6)
    swatches = None if labels is None else _swatches(overlay, labels, count)
    heat = _heatmap(chart, words, count, swatches, top) if count and width else _no_heatmap(chart, width)
    line = None
    for title, attention in frames:
        line = _titled(figure, line, title, int(inches[0] * 13))
        values = _set_values(chart, heat, attention, top) if heat is not None else []
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
        figure.set_layout_engine("none")
        for value in values:
            value.remove()


def _titled(figure: Figure, shown: Text | None, title: str, width: int) -> Text | None:
    """Write the line above a figure, wrapped at `width` characters, over the one that is shown; None without a title."""
    path, title = lettering(title)
    text = "\n".join(textwrap.wrap(title, width))
    if shown is not None:
        shown.set_text(text)
        return shown
    return figure.suptitle(text, font=FontProperties(fname=path, size=10), parse_math=False) if text else None


def _no_heatmap(chart: Axes, width: int) -> None:
    chart.set_axis_off()
    chart.text(0.5, 0.5, "no regions" if width else "empty caption", ha="center", color="grey")


def _heatmap(chart: Axes, words: Sequence[str], count: int, swatches: np.ndarray | None, top: float) -> AxesImage:
    """Lay out a heat map with `count` regions as rows and words as columns; the colour scale ends at `top`."""
    width = len(words)
    empty = np.zeros((count, width))
    heat = chart.imshow(empty, cmap="Blues", vmin=0.0, vmax=top, aspect="auto", interpolation="nearest")
    slanted = {"rotation": 50, "ha": "right", "rotation_mode": "anchor", "parse_math": False}
    path, printable = lettering("\n".join(word.replace("\n", " ") for word in words))
    chart.set_xticks(range(width), printable.split("\n"), font=FontProperties(fname=path, size=8), **slanted)
    chart.set_yticks(range(count), [str(i) for i in range(count)], fontsize=8)
    chart.set_ylabel("region", fontsize=8)
    chart.tick_params(length=0, pad=16 if swatches is not None else 3, axis="y")
    chart.tick_params(length=0, axis="x")
    chart.set_xticks(np.arange(-0.5, width), minor=True)
    chart.set_yticks(np.arange(-0.5, count), minor=True)
    chart.grid(which="minor", color="white", linewidth=1)
    chart.tick_params(which="minor", length=0)
    chart.spines[:].set_visible(False)
    if swatches is not None:
        left_of_axis = chart.get_yaxis_transform() + ScaledTranslation(-8 / 72, 0, chart.figure.dpi_scale_trans)
        chart.scatter(
            np.zeros(count), np.arange(count), 45, swatches / 255.0, marker="s", transform=left_of_axis,
            clip_on=False, edgecolors="#888888", linewidths=0.5,
        )  # fmt: skip
    return heat


def _set_values(chart: Axes, heat: AxesImage, attention: np.ndarray, top: float) -> list[Text]:
    """Show an attention (N,T) in a heat map; returns the numbers in its larger cells."""
    heat.set_data(attention)
    return [
        chart.text(
            column, row, f"{100 * attention[row, column]:.0f}", ha="center", va="center", fontsize=6.5,
            color="white" if attention[row, column] > 0.6 * top else "#20242c",
        )
        for row, column in zip(*np.nonzero(attention >= max(0.15, 0.3 * top)), strict=True)
    ]  # fmt: skip


def _swatches(overlay: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(N,3) median colour of the overlay over each region, which is robust to the numbers and lines drawn on it."""
    size = (overlay.shape[1], overlay.shape[0])
    resized = cv2.resize(labels.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
    white = np.full(3, 255.0)
    return np.array([np.median(overlay[resized == i], axis=0) if (resized == i).any() else white for i in range(count)])
