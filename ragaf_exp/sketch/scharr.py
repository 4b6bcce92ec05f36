"""Gradient magnitude with Scharr's kernels (Scharr, "Optimal operators in digital image processing", 2000)."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import between
from ragaf_exp.sketch.base import blur, to_colour
from ragaf_exp.sketch.gradient import SCHARR, gradients


class Scharr:
    """Soft edges, two pixels wide, as dark as an edge is high.

    The sketch is min(1, |(Sx * I, Sy * I)| / (16 full)), of the colour channel where it is steepest, with
    Sx = [[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]] and Sy its transpose, which answer 16 to a step from 0 to 1.
    Against Sobel's, they weigh all directions alike (within 1 %).

    sigma: of the Gaussian blur before, in pixels (0 to 100, 0 = none).
    full: the height of a sharp step, in (0,1], that is fully dark; lower ones are lighter in proportion.
    """

    def __init__(self, sigma: limits.Blur = 0.7, full: limits.Part = 0.4) -> None:
        between("sketch.sigma", sigma, 0, 100, 0.7)
        between("sketch.full", full, 0, 1, 0.4, above=True)
        self.sigma, self.full = sigma, full

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """image (H,W,3), any dtype -> float32 (H,W) in [0,1], 1 = stroke. The drawing is not looked at."""
        dx, dy = gradients(blur(to_colour(image), self.sigma), SCHARR)
        return np.minimum(np.sqrt(dx * dx + dy * dy) / np.float32(self.full), 1)
