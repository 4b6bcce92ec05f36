"""Augmentations of training sketches: (sketch, random generator) -> sketch, float32 (H,W) in [0,1], 1 = stroke."""

from ragaf_exp.sketch.augment.drawing import Drawing
from ragaf_exp.sketch.augment.none import Unchanged

__all__ = ["Drawing", "Unchanged"]
