"""No augmentation."""

from __future__ import annotations

import numpy as np


class Unchanged:
    """Passes sketches on."""

    active = False  # whether sketches change at all: where not, training reads prepared examples

    def __call__(self, sketch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return sketch
