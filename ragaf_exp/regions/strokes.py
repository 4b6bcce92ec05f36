"""Stroke masks of sketches, and resizing by integer factors."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.core.jit import compiled

FAINTEST, BOLDEST = 0.15, 0.5


def stroke_mask(sketch: np.ndarray) -> np.ndarray:
    """Compute the stroke mask (H,W) bool of a sketch (H,W) float in [0,1].

    Uses Otsu's threshold, clamped to 0.15 to 0.5, so that faint (anti-aliased, scanned) strokes count but the grain of
    a blank page does not.
    """
    grey = cv2.convertScaleAbs(np.fmax(sketch, 0), alpha=255, beta=-0.499)  # rounded down; NaN is no stroke
    if cv2.countNonZero(grey) == np.count_nonzero(grey == 255):  # a binary sketch, as of Canny
        return grey > 0
    otsu, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return grey > min(max(otsu, FAINTEST * 255), BOLDEST * 255)


@compiled
def shrink(sketch: np.ndarray, factor: int) -> np.ndarray:
    """Take the maximum of every factor x factor cell, the last ones cropped: (ceil H/f, ceil W/f) float32."""
    height, width = sketch.shape
    small = np.zeros((-(-height // factor), -(-width // factor)), np.float32)
    for y in range(height):
        row = small[y // factor]
        for column in range(len(row)):
            for value in sketch[y, column * factor : (column + 1) * factor]:
                row[column] = max(row[column], value)
    return small


@compiled
def enlarge(small: np.ndarray, factor: int, height: int, width: int) -> np.ndarray:
    """Repeat every cell of a label map as factor x factor pixels.

    Args:
        small: (h,w) label map.
        factor: Pixels per cell and side.
        height: Height H to crop to.
        width: Width W to crop to.

    Returns:
        (H,W) label map.
    """
    out = np.empty((height, width), small.dtype)
    for y in range(height):
        for x in range(width):
            out[y, x] = small[y // factor, x // factor]
    return out
