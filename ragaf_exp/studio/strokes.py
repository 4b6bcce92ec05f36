"""Strokes of a drawing: lists of points in shares of the side, as the page records them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np

Stroke: TypeAlias = dict[str, Any]  # points [[x, y], ...], width, perhaps erase
SHIFT = 4  # bits of OpenCV's subpixel positions


def rasterise(strokes: Sequence[Stroke], side: int = 512) -> np.ndarray:
    """Draw strokes dark on white.

    Args:
        strokes: The strokes, in order; one with `erase` draws white.
        side: Of the picture in pixels.

    Returns:
        (side,side,3) uint8.
    """
    picture = np.full((side, side, 3), 255, np.uint8)
    for stroke in strokes:
        points = np.asarray([point[:2] for point in stroke["points"]], np.float64)
        colour = (255, 255, 255) if stroke.get("erase") else (0, 0, 0)
        placed = np.rint((points * side - 0.5) * 2**SHIFT).astype(np.int32)
        thickness = max(1, round(stroke["width"] * side))
        cv2.polylines(picture, [placed], False, colour, thickness, cv2.LINE_AA, SHIFT)
    return picture
