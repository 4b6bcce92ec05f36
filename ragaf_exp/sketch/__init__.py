"""Sketch extractors: (image, drawing or None) -> sketch float32 (H,W) in [0,1], 1 = stroke."""

from ragaf_exp.sketch.canny import Canny
from ragaf_exp.sketch.drawn import Drawn
from ragaf_exp.sketch.xdog import XDoG

__all__ = ["Canny", "Drawn", "XDoG"]
