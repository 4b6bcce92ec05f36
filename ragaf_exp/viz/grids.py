"""Image grids and comparisons as uint8 RGB arrays.

Pyplot is not used, since its global state leaks figures and settings between calls and is not thread-safe.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ragaf_exp.viz.fonts import lettering

PAPER, INK, FRAME = (255, 255, 255), (32, 36, 44), (214, 218, 224)
GAP = 6  # px between cells


def grid(
    images: Sequence[Sequence[np.ndarray | None]],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    cell: int = 128,
) -> np.ndarray:
    """Arrange images in a labelled grid.

    Args:
        images: Rows of (H,W,3) uint8 images or (H,W) sketches in [0,1], drawn dark on white. None leaves a cell empty.
        columns: Labels above the columns.
        rows: Labels to the left of the rows, wrapped to fit.
        cell: Side of a cell, in px. Images are scaled to fit; small ones are enlarged without blur.

    Returns:
        (h,w,3) uint8 image.
    """
    width = max((len(row) for row in images), default=0)
    size = _letter(cell)
    left = GAP + (2 * cell + GAP if any(rows) else 0)
    top = GAP + (size + 2 * GAP if any(columns) else 0)
    shape = (left + max(width, len(columns)) * (cell + GAP), top + max(len(images), 1) * (cell + GAP))
    canvas = Image.new("RGB", shape, PAPER)
    pen = ImageDraw.Draw(canvas)
    for j, label in enumerate(columns):
        _write(pen, label, left + j * (cell + GAP), GAP, cell, 1, size)
    for i, row in enumerate(images):
        y = top + i * (cell + GAP)
        if i < len(rows):
            _write(pen, rows[i], GAP, y, left - 3 * GAP, cell // (size + 4), size)
        for j, picture in enumerate(row):
            if picture is not None:
                fitted = _fit(picture, cell)
                x = left + j * (cell + GAP) + (cell - fitted.shape[1]) // 2
                above = y + (cell - fitted.shape[0]) // 2
                pen.rectangle((x - 1, above - 1, x + fitted.shape[1], above + fitted.shape[0]), outline=FRAME)
                canvas.paste(Image.fromarray(fitted), (x, above))
    return np.asarray(canvas).copy()


def png(picture: np.ndarray) -> bytes:
    """(h,w,3) uint8 as a PNG file's content."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def comparison(pictures: Mapping[str, np.ndarray | None], caption: str = "", cell: int = 256) -> np.ndarray:
    """Arrange named images in one row.

    Args:
        pictures: Images by name, as for `grid`.
        caption: Text below the row, "" for none.
        cell: Side of a cell, in px.

    Returns:
        (h,w,3) uint8 image.
    """
    return captioned(grid([list(pictures.values())], columns=list(pictures), cell=cell), caption, cell)


def captioned(picture: np.ndarray, caption: str, cell: int = 256) -> np.ndarray:
    """Add a caption of up to three lines below a grid.

    Args:
        picture: (h,w,3) uint8 image.
        caption: The text; "" adds nothing.
        cell: Side of the grid's cells, in px, which sets the size of the letters.

    Returns:
        (h',w,3) uint8 image.
    """
    if not caption:
        return picture
    size = _letter(cell)
    path, caption = lettering(caption)
    lines = _wrap(caption, picture.shape[1] - 2 * GAP, 3, _font(path, size))
    foot = Image.new("RGB", (picture.shape[1], len(lines) * (size + 4) + 2 * GAP), PAPER)
    ImageDraw.Draw(foot).multiline_text((GAP, GAP // 2), "\n".join(lines), INK, _font(path, size), spacing=4)
    return np.vstack([picture, np.asarray(foot)])


def _fit(picture: np.ndarray, cell: int) -> np.ndarray:
    """The image as (h,w,3) uint8, scaled so that its longer side is `cell` px."""
    if picture.ndim == 2:
        picture = np.rint(255.0 * (1.0 - np.clip(picture, 0.0, 1.0)))[..., None].repeat(3, axis=2).astype(np.uint8)
    scale = cell / max(picture.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in (picture.shape[1], picture.shape[0]))
    interpolation = cv2.INTER_NEAREST if scale >= 1.5 else cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(picture, size, interpolation=interpolation)


def _letter(cell: int) -> int:
    """Height of the letters for cells of this side, both in px."""
    return min(16, max(11, cell // 10))


@cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _wrap(text: str, width: int, lines: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Wrap the text into at most `lines` lines of `width` px; a truncated text ends in an ellipsis."""
    letters = max(4, int(width / font.getlength("n")))
    return textwrap.wrap(text, letters, max_lines=max(1, lines), placeholder=" …")


def _write(pen: ImageDraw.ImageDraw, text: str, x: int, y: int, width: int, lines: int, size: int) -> None:
    path, text = lettering(text)
    wrapped = "\n".join(_wrap(text, width, lines, _font(path, size)))
    pen.multiline_text((x, y), wrapped, INK, _font(path, size), spacing=4)
