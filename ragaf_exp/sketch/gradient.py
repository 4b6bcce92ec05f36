"""Gradients of colour pictures."""

from __future__ import annotations

import cv2
import numpy as np

SOBEL, SCHARR = 3, cv2.FILTER_SCHARR  # kernels, as cv2.Sobel names them
FULL_STEP = {SOBEL: 4.0, SCHARR: 16.0}  # what a kernel answers to a step from 0 to 1


def gradients(picture: np.ndarray, kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives (H,W) along x and y of a float32 picture (H,W) or (H,W,C); 1 = what a sharp step from 0 to 1 gives.

    Each pixel takes the channel where it is steepest, so that edges between colours of equal brightness are seen.
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
        for kept, new in ((best_x, x), (best_y, y), (best, square)):
            np.copyto(kept, new, where=steeper)
    return best_x, best_y
