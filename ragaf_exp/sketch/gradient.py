"""Gradients of colour images."""

from __future__ import annotations

import cv2
import numpy as np

SOBEL, SCHARR = 3, cv2.FILTER_SCHARR  # kernel sizes for cv2.Sobel
FULL_STEP = {SOBEL: 4.0, SCHARR: 16.0}  # response of a kernel to a step from 0 to 1


def gradients(picture: np.ndarray, kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute derivatives along x and y, scaled to 1 for a sharp step from 0 to 1.

    Each pixel uses the channel where the gradient is steepest, so that edges between colours of equal brightness are
    detected.

    Args:
        picture: (H,W) or (H,W,C) float32.
        kernel: SOBEL or SCHARR.

    Returns:
        dx and dy, (H,W) each.
    """
    scale = 1 / FULL_STEP[kernel]
    dx, dy = (
        cv2.Sobel(picture, cv2.CV_32F, *order, ksize=kernel, scale=scale, borderType=cv2.BORDER_REPLICATE)
        for order in ((1, 0), (0, 1))
    )
    (best_x, best_y), *others = zip(cv2.split(dx), cv2.split(dy), strict=True)
    best = best_x * best_x + best_y * best_y
    for x, y in others:
        square = x * x + y * y
        steeper = square > best
        for steepest, candidate in ((best_x, x), (best_y, y), (best, square)):
            np.copyto(steepest, candidate, where=steeper)
    return best_x, best_y
