"""No augmentation."""

from __future__ import annotations

import numpy as np


class Unchanged:
    """Leaves sketches unchanged."""

    active = False  # whether sketches change at all; if not, training uses cached examples

    def __call__(self, sketch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return sketch
