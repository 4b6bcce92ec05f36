"""Canny edges (Canny, "A computational approach to edge detection", 1986), on colour."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, between
from ragaf_exp.sketch.base import blur, to_colour
from ragaf_exp.sketch.gradient import SOBEL, gradients

UNIT = 16384  # int16 value for cv2.Canny of a step from 0 to 1: does not overflow, even squared and summed
FAINTEST = 0.03  # smallest automatic threshold: steps below 3 % are noise, not edges


class Canny:
    """Binary edges one pixel wide.

    Each pixel uses the gradient of the colour channel where it is steepest, so that edges between colours of equal
    brightness are detected.

    Args:
        low: Lower hysteresis threshold, as the height of a sharp step in [0,1]; 0 = 0.4 times the upper one.
        high: Upper hysteresis threshold; 0 = Otsu's threshold of the gradient histogram.
        sigma: Standard deviation of the Gaussian blur before, in pixels (0 to 100); 0 = none.
    """

    def __init__(self, low: limits.Share = 0.0, high: limits.Share = 0.0, sigma: limits.Blur = 1.0) -> None:
        between("sketch.low", low, 0, 1, 0)
        between("sketch.high", high, 0, 1, 0)
        between("sketch.sigma", sigma, 0, 100, 1)
        if high and low > high:
            raise UserError(f"sketch.low={low}: must not be above sketch.high={high}; take {0.4 * high:.3g}")
        self.low, self.high, self.sigma = low, high, sigma

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """Extract from image (H,W,3), any dtype, a sketch (H,W) float32, 1 = stroke; the drawing is ignored."""
        dx, dy = gradients(blur(to_colour(image), self.sigma), SOBEL)
        high = self.high or max(_otsu(np.sqrt(dx * dx + dy * dy)), FAINTEST)
        low = min(self.low or 0.4 * high, high)
        steps = [np.round(d * UNIT).astype(np.int16) for d in (dx, dy)]
        return cv2.Canny(*steps, low * UNIT, high * UNIT, L2gradient=True) / np.float32(255)


def _otsu(magnitude: np.ndarray) -> float:
    """Compute Otsu's threshold of gradient magnitudes, in steps of 1/255."""
    levels = np.minimum(magnitude * 255, 255).astype(np.uint8)
    return cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0] / 255
