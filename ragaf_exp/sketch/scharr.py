"""Gradient magnitude with Scharr's kernels (Scharr, "Optimal operators in digital image processing", 2000)."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import between
from ragaf_exp.sketch.base import blur, to_colour
from ragaf_exp.sketch.gradient import SCHARR, gradients


class Scharr:
    """Soft edges, two pixels wide, with a darkness proportional to the height of the edge.

    The sketch is min(1, |(Sx * I, Sy * I)| / (16 full)), of the colour channel where it is steepest, with
    Sx = [[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]] and Sy its transpose, whose response to a step from 0 to 1 is 16.
    Unlike Sobel's kernels, they respond equally in all directions (within 1 %).

    Args:
        sigma: Standard deviation of the Gaussian blur before, in pixels (0 to 100); 0 = none.
        full: Height of a sharp step, in (0,1], that is fully dark; lower ones are proportionally lighter.
    """

    def __init__(self, sigma: limits.Blur = 0.7, full: limits.Part = 0.4) -> None:
        between("sketch.sigma", sigma, 0, 100, 0.7)
        between("sketch.full", full, 0, 1, 0.4, above=True)
        self.sigma, self.full = sigma, full

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """Extract from image (H,W,3), any dtype, a sketch (H,W) float32 in [0,1], 1 = stroke; the drawing is ignored."""
        dx, dy = gradients(blur(to_colour(image), self.sigma), SCHARR)
        return np.minimum(np.sqrt(dx * dx + dy * dy) / np.float32(self.full), 1)
