"""The drawing that comes with the data, used as sketch."""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.sketch.base import thinned, to_grey


class Drawn:
    """Uses the item's drawing as sketch. Its polarity was normalised when its file was read (data.images.read_drawing).

    Args:
        binarise: Make strokes exactly 1 and paper 0 (threshold 0.5).
        thin: Thin strokes to lines one pixel wide; implies binarise.
    """

    def __init__(self, binarise: bool = False, thin: bool = False) -> None:
        self.binarise, self.thin = binarise, thin

    def __call__(self, image: np.ndarray, drawing: np.ndarray | None) -> np.ndarray:
        """Convert a drawing (H,W), 1 = stroke, to a sketch (H,W) float32 in [0,1]. Raises UserError if there is none."""
        if drawing is None:
            raise UserError("sketch=drawn: the data has no drawings; give data.drawings or take sketch=canny")
        sketch = to_grey(drawing)
        if not (self.binarise or self.thin):
            return sketch
        stroke = sketch > 0.5
        return (thinned(stroke) if self.thin else stroke).astype(np.float32)
