"""Points that name regions: a point in a region survives another numbering of the regions."""

from __future__ import annotations

import cv2
import numpy as np


def region_points(labels: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Return the deepest point of each region.

    Args:
        labels: (H,W) region index of each pixel, -1 = no region.
        count: Number of regions N.

    Returns:
        N points (x, y), as shares of width and height from the top left, rounded to 3 digits.
    """
    return [_deepest(labels == region) for region in range(count)]


def region_at(labels: np.ndarray, x: float, y: float) -> int:
    """Return the region at a point; -1 = no region.

    Args:
        labels: (H,W) region index of each pixel, -1 = no region.
        x: Share of the width from the left, in [0, 1].
        y: Share of the height from the top, in [0, 1].
    """
    row, column = _pixel(labels.shape, x, y)
    return int(labels[row, column])


def nearest_region(labels: np.ndarray, x: float, y: float) -> int:
    """Return the region with the pixel nearest to a point; -1 if there are no regions.

    Args:
        labels: (H,W) region index of each pixel, -1 = no region.
        x: Share of the width from the left, in [0, 1].
        y: Share of the height from the top, in [0, 1].
    """
    row, column = _pixel(labels.shape, x, y)
    pixels = np.argwhere(labels >= 0)
    if not len(pixels):
        return -1
    nearest = pixels[np.square(pixels - (row, column)).sum(1).argmin()]
    return int(labels[tuple(nearest)])


def _pixel(shape: tuple[int, ...], x: float, y: float) -> tuple[int, int]:
    return min(int(y * shape[0]), shape[0] - 1), min(int(x * shape[1]), shape[1] - 1)


def _deepest(mask: np.ndarray) -> tuple[float, float]:
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return round(float(column + 0.5) / mask.shape[1], 3), round(float(row + 0.5) / mask.shape[0], 3)
