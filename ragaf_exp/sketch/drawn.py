"""The drawing that the data comes with."""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.sketch.base import thinned, to_grey


class Drawn:
    """Passes a given drawing on. Its polarity was found where its file was read (data.images.read_drawing).

    binarise: strokes become exactly 1, paper 0 (threshold 0.5).
    thin: strokes become lines one pixel wide; implies binarise.
    """

    def __init__(self, binarise: bool = False, thin: bool = False) -> None:
        self.binarise, self.thin = binarise, thin

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """drawing (H,W), 1 = stroke -> float32 (H,W) in [0,1]. Raises UserError where drawing is None."""
        if drawing is None:
            raise UserError("sketch=drawn: the data has no drawings; give data.drawings or take sketch=canny")
        sketch = to_grey(drawing)
        if not (self.binarise or self.thin):
            return sketch
        stroke = sketch > 0.5
        return (thinned(stroke) if self.thin else stroke).astype(np.float32)
