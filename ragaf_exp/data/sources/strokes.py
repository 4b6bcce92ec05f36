"""Vector drawings: strokes drawn at any size, with a width in proportion, and their silhouettes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

WIDTH = 1 / 64  # of a stroke, relative to the picture's side
SUPERSAMPLE = 4
SHIFT = 4  # bits of subpixel coordinates
CLOSING = 0.1  # gaps of an outline that its silhouette closes, relative to the picture's side
Strokes = Sequence[np.ndarray]  # each (K, 2): x, y


def normalised(strokes: Strokes) -> list[np.ndarray]:
    """Move and scale strokes so that the longer side of their box is 1, with the upper left corner at 0."""
    points = np.concatenate([np.asarray(stroke, np.float64).reshape(-1, 2) for stroke in strokes])
    corner = points.min(0)
    side = max(float((points.max(0) - corner).max()), 1e-9)
    return [(np.asarray(stroke, np.float64).reshape(-1, 2) - corner) / side for stroke in strokes]


def extent(strokes: Strokes) -> tuple[float, float]:
    """Return height and width of normalised strokes."""
    width, height = np.concatenate(strokes).max(0).tolist()
    return height, width


def draw_strokes(
    strokes: Strokes, size: int, scale: float, offset: tuple[float, float], width: float = WIDTH
) -> np.ndarray:
    """Draw strokes with round ends.

    Args:
        strokes: Each (K, 2): x, y.
        size: Side of the square picture, in pixels.
        scale: Pixels per unit of the strokes.
        offset: x and y in pixels, at which their origin lies.
        width: Of the lines, relative to the size; at least a pixel is drawn.

    Returns:
        (size, size) float32 in [0, 1], 1 = stroke.
    """
    fine = np.zeros((size * SUPERSAMPLE,) * 2, np.uint8)
    thickness = max(round(width * size * SUPERSAMPLE), SUPERSAMPLE)
    for stroke in strokes:
        points = (np.asarray(stroke, np.float64).reshape(-1, 2) * scale + offset) * SUPERSAMPLE
        fixed = np.rint(points * (1 << SHIFT)).astype(np.int32)
        if len(fixed) == 1:  # a dot
            fixed = np.repeat(fixed, 2, 0)
        cv2.polylines(fine, [fixed], False, 255, thickness, cv2.LINE_8, SHIFT)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def alone(strokes: Strokes, size: int, margin: float = 0.08, width: float = WIDTH) -> np.ndarray:
    """Draw normalised strokes centred, as large as the margin permits.

    Args:
        strokes: Each (K, 2), in [0, 1].
        size: Side of the square picture, in pixels.
        margin: At each side, relative to the size.
        width: Of the lines, relative to the size.

    Returns:
        (size, size) float32 in [0, 1], 1 = stroke.
    """
    height, breadth = extent(strokes)
    scale = size * (1 - 2 * margin)
    return draw_strokes(strokes, size, scale, ((size - breadth * scale) / 2, (size - height * scale) / 2), width)


def silhouette(drawing: np.ndarray) -> np.ndarray:
    """Fill the outlines of a drawing (H, W) in [0, 1], after closing small gaps: (H, W) bool."""
    window = 2 * max(1, round(CLOSING * max(drawing.shape) / 2)) + 1
    ink = (drawing > 0.3).astype(np.uint8)
    pad = np.pad(ink, window)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window))
    contours, _ = cv2.findContours(cv2.dilate(pad, disc), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.erode(cv2.drawContours(np.zeros_like(pad), contours, -1, 1, cv2.FILLED), disc)
    return (filled[window:-window, window:-window] | ink) > 0
