"""The area of an image that is sampled again while the rest stays."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np


def redo_area(labels: np.ndarray, redo: Collection[int], locked: Collection[int], grow: float) -> np.ndarray:
    """Select the pixels to sample again: some regions, grown into their neighbours, but never into locked ones.

    Without growth a rim of the old colour stays, as the border of two regions is blended.

    Args:
        labels: (H,W) region index of each pixel, -1 = no region.
        redo: Regions that are sampled again.
        locked: Regions whose pixels stay; they win over `redo`.
        grow: Growth as a share of the shorter side, in [0, 1].

    Returns:
        (H,W) bool.
    """
    area = np.isin(labels, list(redo))
    if pixels := round(grow * min(labels.shape)):
        side = 2 * pixels + 1
        area = cv2.dilate(area.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    return area & ~np.isin(labels, list(locked))
