"""XDoG (Winnemoeller, Kyprianidis, Olsen, "XDoG: an extended difference-of-Gaussians compendium", 2012)."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import between
from ragaf_exp.sketch.base import blur, to_grey


class XDoG:
    """Soft lines from a sharpened difference of Gaussians.

    D = (1 + p) G_sigma - p G_(k sigma) of the grey picture in [0,1]; paper E = 1 where D >= epsilon, else
    1 + tanh(phi (D - epsilon)); the sketch is 1 - E.

    Args:
        sigma: Standard deviation of the finer Gaussian, in pixels (above 0, at most 100).
        k: Ratio of the coarser standard deviation to the finer one (above 1, at most 16).
        p: Strength of sharpening (0 to 1000).
        epsilon: Brightness in [0,1] up to which uniform areas are filled with ink; 0 draws edges only.
        phi: Steepness of the ink's edge (above 0, at most 10000).
    """

    def __init__(
        self, sigma: limits.SomeBlur = 0.8, k: limits.Ratio = 1.6, p: limits.Sharpness = 20.0,
        epsilon: limits.Share = 0.0, phi: limits.Steepness = 10.0,
    ) -> None:  # fmt: skip
        between("sketch.sigma", sigma, 0, 100, 0.8, above=True)
        between("sketch.k", k, 1, 16, 1.6, above=True)
        between("sketch.p", p, 0, 1000, 20)
        between("sketch.epsilon", epsilon, 0, 1, 0)
        between("sketch.phi", phi, 0, 1e4, 10, above=True)
        self.sigma, self.k, self.p, self.epsilon, self.phi = sigma, k, p, epsilon, phi

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """Extract from image (H,W,3), any dtype, a sketch (H,W) float32 in [0,1], 1 = stroke; the drawing is ignored."""
        grey = to_grey(image)
        sharp = (1 + self.p) * blur(grey, self.sigma) - self.p * blur(grey, self.k * self.sigma)
        return np.tanh(self.phi * np.maximum(self.epsilon - sharp, 0))
