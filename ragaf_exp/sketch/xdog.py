"""XDoG (Winnemoeller, Kyprianidis, Olsen, "XDoG: an extended difference-of-Gaussians compendium", 2012)."""

from __future__ import annotations

import numpy as np

from ragaf_exp.errors import UserError
from ragaf_exp.sketch.base import blur, to_grey


class XDoG:
    """Soft lines from a sharpened difference of Gaussians.

    D = (1 + p) G_sigma - p G_(k sigma) of the grey picture in [0,1]; paper E = 1 where D >= epsilon, else
    1 + tanh(phi (D - epsilon)); the sketch is 1 - E.

    sigma: of the finer Gaussian, in pixels. k: the coarser one's multiple. p: sharpening.
    epsilon: brightness below which ink begins (dark areas fill with ink, the higher the more).
    phi: hardness of the ink's edge.
    """

    def __init__(
        self, sigma: float = 0.8, k: float = 1.6, p: float = 20.0, epsilon: float = 0.05, phi: float = 10.0
    ) -> None:
        for key, value, mend in (("sigma", sigma, 0.8), ("phi", phi, 10)):
            if not value > 0:
                raise UserError(f"sketch.{key}={value}: must be above 0; take {mend}")
        if not k > 1:
            raise UserError(f"sketch.k={k}: must be above 1; take 1.6")
        if not p >= 0:
            raise UserError(f"sketch.p={p}: must be at least 0; take 20")
        if not 0 <= epsilon <= 1:
            raise UserError(f"sketch.epsilon={epsilon}: must lie in 0 to 1; take 0.05")
        self.sigma, self.k, self.p, self.epsilon, self.phi = sigma, k, p, epsilon, phi

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """image (H,W,3), any dtype -> float32 (H,W) in [0,1], 1 = stroke. The drawing is not looked at."""
        grey = to_grey(image)
        sharp = (1 + self.p) * blur(grey, self.sigma) - self.p * blur(grey, self.k * self.sigma)
        return np.tanh(self.phi * np.maximum(self.epsilon - sharp, 0))
