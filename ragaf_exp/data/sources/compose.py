"""Composition of real drawings into one scene: pictures, strokes and masks pasted into boxes that don't overlap."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.data.fit import resize_strokes
from ragaf_exp.data.sources.emoji import Art
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS

UNITS = 64  # lengths below are in 64ths of the image side
SIDES = {
    1: (38.0, 54.0),
    2: (26.0, 34.0),
    3: (23.0, 29.0),
    4: (20.0, 26.0),
}  # longer side, by number of objects
GAP, MARGIN, STEP = 2.0, 1.0, 4.0  # between boxes, to the frame, between centres from left to right
TRIES = 96  # layouts tried before the boxes shrink


def place_boxes(rng: np.random.Generator, shapes: np.ndarray, size: int) -> np.ndarray:
    """Sample boxes that keep GAP from each other and MARGIN from the frame.

    Their centres differ by at least STEP from left to right, so that the order is unambiguous.

    Args:
        rng: Random generator.
        shapes: (N, 2) heights and widths, of which only the aspects count.
        size: Side of the image in pixels.

    Returns:
        (N, 4) int: top, left, height and width of each box, in pixels.
    """
    count, unit = len(shapes), size / UNITS
    low, high = SIDES[count]
    sides = shapes / shapes.max(1, keepdims=True) * (low + (high - low) * rng.random((count, 1))) * unit
    first, second = np.triu_indices(count, 1)
    while True:
        sides = np.maximum(np.rint(sides), 1)
        margin = MARGIN * unit
        corners = np.rint(margin + rng.random((TRIES, count, 2)) * (size - 2 * margin - sides))
        centres = corners + sides / 2
        reach = (sides[first] + sides[second]) / 2 + GAP * unit
        clear = (np.abs(centres[:, first] - centres[:, second]) >= reach).any(-1).all(-1)
        steps = np.diff(np.sort(centres[..., 1], -1), axis=-1).min(-1, initial=size)
        good = np.flatnonzero(clear & (steps >= STEP * unit))
        if len(good):
            return np.concatenate([corners[good[0]], sides], 1).astype(int)
        sides = sides * 0.95


class Layout:
    """A scene being composed; objects are numbered from 1 in the order they are added."""

    def __init__(self, size: int, background: str) -> None:
        self._canvas = np.full((size, size, 3), BACKGROUND_COLOURS[background], np.float32)
        self._count = 0
        self.drawing = np.zeros((size, size), np.float32)  # 1 = stroke
        self.object_map = np.zeros((size, size), np.uint8)  # the label where the colour picture is at least half opaque

    def add(self, art: Art, top: int, left: int, height: int, width: int) -> None:
        """Paste an emoji into a box inside the frame.

        Args:
            art: The emoji.
            top: Top row of the box, in pixels.
            left: Left column of the box, in pixels.
            height: Height of the box, in pixels.
            width: Width of the box, in pixels.
        """
        self._count += 1
        box = slice(top, top + height), slice(left, left + width)
        layers = np.dstack([art.rgb * art.cover[..., None], art.cover])  # colour times alpha: no fringes
        shrinks = height < layers.shape[0]
        layers = cv2.resize(layers, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        cover = layers[..., 3]
        self._canvas[box] = self._canvas[box] * (1 - cover[..., None]) + layers[..., :3]
        self.object_map[box][cover >= 0.5] = self._count
        self.drawing[box] = np.maximum(self.drawing[box], resize_strokes(art.ink, height, width))

    def image(self) -> np.ndarray:
        """Return the scene as uint8 (H, W, 3)."""
        return np.clip(np.rint(self._canvas), 0, 255).astype(np.uint8)
