"""Sketch extractors: (image, drawing or None) -> sketch float32 (H,W) in [0,1], 1 = stroke.

The neural ones (hed, lineart, pidinet, teed) are not imported here, as they need PyTorch, which is slow to import.
"""

from ragaf_exp.sketch.canny import Canny
from ragaf_exp.sketch.dog import DoG
from ragaf_exp.sketch.drawn import Drawn
from ragaf_exp.sketch.scharr import Scharr
from ragaf_exp.sketch.xdog import XDoG

__all__ = ["Canny", "DoG", "Drawn", "Scharr", "XDoG"]
