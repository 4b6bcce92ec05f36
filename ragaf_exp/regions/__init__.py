"""Regions of a sketch: enclosed areas between strokes, their soft masks and a picture of them."""

from ragaf_exp.regions.enclosed import Enclosed
from ragaf_exp.regions.soft_masks import soft_masks
from ragaf_exp.viz.regions import region_overlay

__all__ = ["Enclosed", "region_overlay", "soft_masks"]
