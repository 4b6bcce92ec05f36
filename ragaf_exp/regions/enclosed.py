"""Regions as the enclosed areas between strokes (flat colouring), not as the strokes themselves."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.errors import UserError
from ragaf_exp.regions.borders import by_area, crossings
from ragaf_exp.regions.growth import fill
from ragaf_exp.regions.merging import merge
from ragaf_exp.regions.trapped_ball import split_areas
from ragaf_exp.types import Regions


class Enclosed:
    """Enclosed areas between strokes, after closing small gaps.

    max_regions: at most so many regions, the largest (1 to 1024).
    min_area: smaller areas (fraction of the image) join the neighbour with the longest common border.
    gap: gaps in outlines up to this fraction of the shorter side are closed before areas are told apart (twice
        as wide ones where the areas are wide enough for it); 0 = none. See regions/trapped_ball.py.
    strokes: "nearest" gives each stroke pixel to the region next to it, "none" leaves it without (-1).

    The background is the area with most pixels on the image's border; it is always kept. Regions are numbered
    by area, the largest first.
    """

    def __init__(
        self, max_regions: int = 16, min_area: float = 0.002, gap: float = 0.03, strokes: str = "nearest"
    ) -> None:
        if not 1 <= max_regions <= 1024:
            raise UserError(f"regions.max_regions={max_regions}: must lie in 1 to 1024; take 16")
        if not 0 <= min_area <= 1:
            raise UserError(f"regions.min_area={min_area}: must be a share of the image, 0 to 1; take 0.002")
        if not 0 <= gap <= 0.5:
            raise UserError(f"regions.gap={gap}: must be a fraction of the shorter side, 0 to 0.5; take 0.03")
        if strokes not in ("nearest", "none"):
            raise UserError(f"regions.strokes={strokes}: unknown; take nearest or none")
        self.max_regions, self.min_area, self.gap, self.strokes = max_regions, min_area, gap, strokes

    def __call__(self, sketch: np.ndarray) -> Regions:
        """sketch (H,W) float in [0,1], 1 = stroke. All stroke: no region; blank: one."""
        stroke = stroke_mask(sketch)
        radius = -(-round(self.gap * min(stroke.shape)) // 2)  # half the gap, rounded up
        areas, count = split_areas(stroke, radius)
        if count == 0:
            return Regions(labels=areas, count=0, background=-1)
        labels = fill(areas)
        sizes = np.bincount(areas[areas >= 0], minlength=count)
        background = _background(labels, count)
        least = self.min_area * stroke.size
        if count > self.max_regions or sizes.min() < least:
            borders = crossings(labels, count)[:count, :count]
            group = merge(borders, sizes, background, least, self.max_regions)
            labels, background = group.astype(np.int16)[labels], int(group[background])
            count = int(group.max()) + 1
        if self.strokes == "none":
            labels[stroke] = -1
        labels, number = by_area(labels, count)
        return Regions(labels=labels, count=count, background=int(number[background]))


def stroke_mask(sketch: np.ndarray) -> np.ndarray:
    """(H,W) bool: where a sketch (float in [0,1]) has a stroke.

    Otsu's threshold, held within 0.15 and 0.5, so that faint (anti-aliased, scanned) strokes count but the
    grain of a blank page does not.
    """
    grey = (np.clip(sketch, 0, 1) * 255).astype(np.uint8)
    otsu, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return grey > min(max(otsu, 0.15 * 255), 0.5 * 255)


def _background(labels: np.ndarray, count: int) -> int:
    """The region with most pixels on the image's border; the larger region (lower index) on a tie."""
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return int(np.bincount(rim, minlength=count).argmax())
