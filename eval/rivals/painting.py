"""Rivals of painting after colour hints."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

PAPER = 250  # grey level of regions without a hint


def flood_fill(labels: np.ndarray, hints: np.ndarray, hinted: np.ndarray) -> np.ndarray:
    """Fill each region with the median colour of its hints; strokes get the colour of the nearest region.

    Args:
        labels: (H,W) integer, region of each pixel, -1 = none.
        hints: (H,W,3) uint8.
        hinted: (H,W) bool, True = hint.

    Returns:
        (H,W,3) uint8; white where there is no hint.
    """
    canvas = np.full((*labels.shape, 3), PAPER, np.uint8)
    for region in np.unique(labels[(labels >= 0) & hinted]):
        inside = labels == region
        canvas[inside] = np.median(hints[inside & hinted], axis=0)
    if (labels < 0).any() and (labels >= 0).any():
        rows, columns = distance_transform_edt(labels < 0, return_distances=False, return_indices=True)
        canvas = canvas[rows, columns]
    return canvas
