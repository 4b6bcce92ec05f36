"""How rough the border of a region looks: a seam or a rim of the old colour shows as a strong second derivative."""

from __future__ import annotations

import cv2
import numpy as np

BAND = 3  # px on either side of the border


def rim_roughness(image: np.ndarray, mask: np.ndarray) -> float:
    """Compute the mean absolute Laplacian around the border of a mask.

    Args:
        image: (H,W,3) uint8.
        mask: (H,W) bool.

    Returns:
        The mean over the band and the channels, with grey values of 0 to 1; 0 for an empty mask.
    """
    side = np.ones((2 * BAND + 1, 2 * BAND + 1), np.uint8)
    area = mask.astype(np.uint8)
    band = (cv2.dilate(area, side) > 0) & (cv2.erode(area, side) == 0)
    laplacian = cv2.Laplacian(image.astype(np.float32) / 255, cv2.CV_32F, ksize=1)
    return float(np.abs(laplacian[band]).mean()) if band.any() else 0.0
