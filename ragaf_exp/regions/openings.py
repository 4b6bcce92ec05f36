"""Openings of an outline through which an area leaks into another: wider than the gaps that are closed, but not by much."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ragaf_exp.core.types import Regions
from ragaf_exp.regions.strokes import stroke_mask

MOST = 8  # openings that are listed


@dataclass(frozen=True)
class Opening:
    """An opening of an outline."""

    at: tuple[float, float]  # its middle (x, y), as shares of width and height
    width: float  # as a share of the shorter side


def openings(sketch: np.ndarray, regions: Regions, wider: Regions) -> list[Opening]:
    """List the places where closing wider gaps would part a region: there the drawing has no stroke.

    Args:
        sketch: (H,W) float in [0,1], 1 = stroke.
        regions: The regions of the sketch.
        wider: Its regions, extracted with a larger `gap`.

    Returns:
        The openings, the widest last, at most 8.
    """
    border = _border(sketch, regions.labels, wider.labels)
    count, parts, boxes, centres = cv2.connectedComponentsWithStats(border.astype(np.uint8), connectivity=8)
    height, width = border.shape
    listed = []
    for part in range(1, count):
        x, y = _nearest(parts == part, centres[part])
        extent = max(boxes[part, cv2.CC_STAT_WIDTH], boxes[part, cv2.CC_STAT_HEIGHT])
        at = (round((x + 0.5) / width, 3), round((y + 0.5) / height, 3))
        listed.append(Opening(at, round(float(extent) / min(height, width), 3)))
    return sorted(listed, key=lambda opening: opening.width)[:MOST]


def _border(sketch: np.ndarray, labels: np.ndarray, wider: np.ndarray) -> np.ndarray:
    """(H,W) bool: pixels without stroke whose neighbour is in the same region, but in another of the wider ones."""
    open_ = ~stroke_mask(sketch)
    border = np.zeros(labels.shape, bool)
    for ahead, behind in (((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
                          ((slice(None), slice(1, None)), (slice(None), slice(None, -1)))):  # fmt: skip
        both = open_[ahead] & open_[behind] & (labels[ahead] == labels[behind]) & (wider[ahead] != wider[behind])
        border[ahead] |= both
        border[behind] |= both
    return border


def _nearest(mask: np.ndarray, centre: np.ndarray) -> tuple[int, int]:
    """Return the pixel (x, y) of a mask that is nearest to a point."""
    rows, columns = np.nonzero(mask)
    best = int(((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2).argmin())
    return int(columns[best]), int(rows[best])
