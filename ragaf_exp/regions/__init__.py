"""Regions of a sketch: enclosed areas between strokes, and their soft masks."""

from ragaf_exp.regions.enclosed import Enclosed
from ragaf_exp.regions.soft_masks import soft_masks

__all__ = ["Enclosed", "soft_masks"]
