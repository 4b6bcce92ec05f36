"""Canny edges (Canny, "A computational approach to edge detection", 1986), on colour."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.errors import UserError
from ragaf_exp.sketch.base import blur, to_unit

FULL_STEP = 4.0  # what a 3x3 Sobel kernel answers to a step from 0 to 1
SCALE = 4096  # gradients go to cv2.Canny as int16: 4 * 4096 keeps clear of its end, also squared and summed
FAINTEST = 0.03  # automatic thresholds never go below a step of 3 %: noise on a plain picture is no edge


class Canny:
    """Edges one pixel wide, exactly 0 or 1.

    low, high: hysteresis thresholds, as the height of a sharp step in [0,1]; high=0 takes Otsu's threshold of
        the gradient histogram, low=0 takes 0.4 times the high one.
    sigma: of the Gaussian blur before, in pixels; 0 = none.

    Each pixel takes the gradient of the colour channel where it is steepest, so that edges between colours of
    equal brightness are seen.
    """

    def __init__(self, low: float = 0.0, high: float = 0.0, sigma: float = 1.0) -> None:
        for key, value in (("low", low), ("high", high)):
            if not 0 <= value <= 1:
                raise UserError(f"sketch.{key}={value}: must lie in 0 to 1; take 0 for automatic")
        if high and low > high:
            raise UserError(f"sketch.low={low}: must not be above sketch.high={high}; take {0.4 * high:.3g}")
        if not sigma >= 0:
            raise UserError(f"sketch.sigma={sigma}: must be at least 0; take 1")
        self.low, self.high, self.sigma = low, high, sigma

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """image (H,W,3), any dtype -> float32 (H,W), 1 = stroke. The drawing is not looked at."""
        dx, dy = _gradients(blur(to_unit(image), self.sigma))
        high = self.high or max(_otsu(np.hypot(dx, dy)), FAINTEST)
        low = min(self.low or 0.4 * high, high)
        steps = [np.round(d * SCALE).astype(np.int16) for d in (dx, dy)]
        unit = FULL_STEP * SCALE
        return cv2.Canny(*steps, low * unit, high * unit, L2gradient=True) / np.float32(255)


def _gradients(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sobel derivatives (H,W) of the steepest channel at each pixel."""
    dx, dy = (
        np.atleast_3d(cv2.Sobel(picture, cv2.CV_32F, *order, borderType=cv2.BORDER_REPLICATE))
        for order in ((1, 0), (0, 1))
    )
    steepest = (dx * dx + dy * dy).argmax(axis=2)[..., None]
    return np.take_along_axis(dx, steepest, 2)[..., 0], np.take_along_axis(dy, steepest, 2)[..., 0]


def _otsu(magnitude: np.ndarray) -> float:
    """Otsu's threshold of gradient magnitudes, as the height of a sharp step."""
    levels = np.minimum(magnitude * (255 / FULL_STEP), 255).astype(np.uint8)
    return cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0] / 255
