"""Difference of Gaussians (Marr and Hildreth, "Theory of edge detection", 1980): soft lines on the dark side of edges."""

from __future__ import annotations

import math

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import between
from ragaf_exp.sketch.base import blur, to_grey


class DoG:
    """Soft lines with a darkness proportional to the height of the edge.

    D = G_(k sigma) * I - G_sigma * I of the grey picture I in [0,1]; the sketch is min(1, max(D, 0) / (full m)).
    m is D's peak next to a straight step from 0 to 1: Phi(x) - Phi(x / k) at x = k sqrt(2 ln k / (k^2 - 1)), Phi being
    the normal distribution. D is positive only on the dark side, so that an edge is one line, and so is a dark line.

    Args:
        sigma: Standard deviation of the finer Gaussian, in pixels (0.5 to 100).
        k: Ratio of the coarser standard deviation to the finer one (above 1, at most 16).
        full: Height of a step, in (0,1], whose line is fully dark; lower steps are proportionally lighter.
    """

    def __init__(self, sigma: limits.LineBlur = 1.0, k: limits.Ratio = 1.6, full: limits.Part = 0.5) -> None:
        between("sketch.sigma", sigma, 0.5, 100, 1)
        between("sketch.k", k, 1, 16, 1.6, above=True)
        between("sketch.full", full, 0, 1, 0.5, above=True)
        self.sigma, self.k, self.full = sigma, k, full

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """Extract from image (H,W,3), any dtype, a sketch (H,W) float32 in [0,1], 1 = stroke; the drawing is ignored."""
        grey = to_grey(image)
        difference = blur(grey, self.k * self.sigma) - blur(grey, self.sigma)
        return np.clip(difference / np.float32(self.full * _peak(self.k)), 0, 1)


def _peak(k: float) -> float:
    x = k * math.sqrt(2 * math.log(k) / (k * k - 1))
    return 0.5 * (math.erf(x / math.sqrt(2)) - math.erf(x / k / math.sqrt(2)))
