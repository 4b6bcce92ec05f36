"""Regions as the enclosed areas between strokes (flat colouring), not the strokes themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Regions
from ragaf_exp.regions.borders import by_area, contract, crossings, renumber, tally
from ragaf_exp.regions.gaps import CLOSINGS, areas
from ragaf_exp.regions.growth import fill
from ragaf_exp.regions.hierarchy import nest
from ragaf_exp.regions.merging import merge
from ragaf_exp.regions.strokes import enlarge, shrink, stroke_mask

CANDIDATES = 1024  # areas considered individually; further ones (noise) are merged with the strokes around them
LARGEST = 1536**2  # pixels: a larger sketch is downsampled by an integer, to bound time and memory


class Enclosed:
    """Enclosed areas between strokes, after closing small gaps.

    The background is the area with most pixels on the image's border; it is never merged. Regions are numbered by area,
    the largest first. A sketch of more than 1536 x 1536 pixels is processed at a half, a third ... of its size.

    Args:
        max_regions: Largest number of regions (1 to 1024); the largest remain.
        min_area: Fraction of the image; smaller areas join the neighbour with the longest common border.
        gap: Fraction of the shorter side up to which gaps in outlines are closed; 0 = none.
        closing: "trapped_ball" closes openings that are narrow relative to the areas on both sides, "morphology" all
            narrow ones. See regions/gaps.py.
        strokes: "nearest" assigns each stroke pixel to the nearest region, "none" to no region (-1).
        levels: Largest depth of containment (0 to 32). See regions/hierarchy.py.
    """

    def __init__(
        self, max_regions: limits.Regions = 16, min_area: limits.Share = 0.002, gap: limits.Gap = 0.03,
        closing: str = "trapped_ball", strokes: str = "nearest", levels: limits.Levels = 4,
    ) -> None:  # fmt: skip
        if not 1 <= max_regions <= CANDIDATES:
            raise UserError(f"regions.max_regions={max_regions}: must lie in 1 to {CANDIDATES}; take 16")
        if not 0 <= min_area <= 1:
            raise UserError(f"regions.min_area={min_area}: must be a share of the image, 0 to 1; take 0.002")
        if not 0 <= gap <= 0.5:
            raise UserError(f"regions.gap={gap}: must be a fraction of the shorter side, 0 to 0.5; take 0.03")
        if closing not in CLOSINGS:
            raise UserError(f"regions.closing={closing}: unknown; take one of {', '.join(CLOSINGS)}")
        if strokes not in ("nearest", "none"):
            raise UserError(f"regions.strokes={strokes}: unknown; take nearest or none")
        if not 0 <= levels <= 32:
            raise UserError(f"regions.levels={levels}: must lie in 0 to 32; take 4")
        self.max_regions, self.min_area, self.gap, self.levels = max_regions, min_area, gap, levels
        self.closing, self.strokes = closing, strokes

    def __call__(self, sketch: np.ndarray) -> Regions:
        """Extract the regions of a sketch (H,W) float in [0,1], 1 = stroke: none if all is stroke, one if it is blank."""
        sketch = np.ascontiguousarray(sketch, np.float32)
        factor = math.ceil(math.sqrt(sketch.size / LARGEST))
        if factor > 1:
            small = self(shrink(sketch, factor))
            return replace(small, labels=enlarge(small.labels, factor, *sketch.shape))
        stroke = stroke_mask(sketch)
        labels, sizes = areas(stroke, self.closing, self.gap * min(stroke.shape), CANDIDATES)
        if len(sizes) == 0:
            nothing = np.zeros(0, np.int16)
            return Regions(labels, 0, -1, nothing, nothing)
        return self._regions(fill(labels), sizes, stroke)

    def _regions(self, labels: np.ndarray, sizes: np.ndarray, stroke: np.ndarray) -> Regions:
        """Merge and order areas, labels (H,W) with N open pixel counts `sizes`, and compute their containment."""
        count, background = len(sizes), _background(labels, len(sizes))
        straight, diagonal = crossings(labels, count)
        group = merge(straight[:count, :count], sizes, background, self.min_area * stroke.size, self.max_regions)
        total = np.bincount(group, tally(labels, count) if self.strokes == "nearest" else sizes)
        order = by_area(total)
        number = order[group]
        touching = contract(straight + diagonal, np.append(number, len(total))) > 0
        labels = renumber(labels, number)
        if self.strokes == "none":
            labels[stroke] = -1
        return Regions(labels, len(total), int(number[background]), *nest(touching, self.levels))


def _background(labels: np.ndarray, count: int) -> int:
    """Return the region with most pixels on the image's border; on a tie the larger region (lower index)."""
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return int(np.bincount(rim, minlength=count).argmax())
