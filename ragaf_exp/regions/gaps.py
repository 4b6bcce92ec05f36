"""How deep each pixel lies between strokes, and which openings count as gaps: what areas are flooded by."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ragaf_exp.regions.flooding import NEVER, flood

STEPS = 8.0  # depths are told apart by quarter pixels
ALL_ONE = np.full((2, 256), NEVER, np.uint8)  # no two basins that meet stay apart
# An opening of depth s is a gap where both sides are at least `a s + b` pixels deep. Towards an area at the picture's
# rim the doubt is for the gap: a figure lost to its ground is worse than one in two parts.
INSIDE, ACROSS = (4.0, 1.0), (1.5, 0.5)
SLANT = 2.6  # pixels that an opening may be wider than `gap`: its depth is measured from the middle of strokes


def trapped_ball(stroke: np.ndarray, gap: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Areas that strokes part, gaps about `gap` pixels wide being closed where both sides are wide enough.

    stroke (H,W) bool. A narrow opening between narrow areas is a neck or a corridor and stays open. Returns what
    `flood` returns.
    """
    open_ = (~stroke).view(np.uint8)
    if gap == 0 or open_.all():  # no stroke to measure a distance from
        return flood(open_, ALL_ONE, most)
    steps, deepest, need = _scale(gap)
    distance = cv2.distanceTransform(open_, cv2.DIST_L2, 5)
    depth = cv2.convertScaleAbs(distance, alpha=steps, beta=-0.499)  # rounded down, and cut off at 255
    return flood(np.minimum(depth, deepest), need, most)


@lru_cache(maxsize=16)
def _scale(gap: float) -> tuple[float, np.uint8, np.ndarray]:
    """Depth steps a pixel, the depth in steps beyond which nothing is told apart, and what `flood` needs."""
    widest = (gap + SLANT) / 2  # depth in the middle of the widest gap
    deepest = max(a * widest + b for a, b in (INSIDE, ACROSS))
    steps = min(STEPS, (NEVER - 1) / (deepest + 1))
    saddle = np.arange(256) / steps
    need = [np.where(saddle <= widest, np.ceil((a * saddle + b) * steps), NEVER) for a, b in (INSIDE, ACROSS)]
    return steps, np.uint8(np.ceil(deepest * steps)), np.minimum(need, NEVER).astype(np.uint8)


def morphology(stroke: np.ndarray, gap: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Areas that strokes part, every opening about `gap` pixels wide being closed, necks and corridors too.

    The morphological way: areas are told apart where strokes grown by half a gap leave them open, then grow back; an
    area that is covered whole stays one. (A closing by a disc alone would leave gaps in thin lines open.) stroke (H,W)
    bool. Returns what `flood` returns.
    """
    open_ = (~stroke).view(np.uint8)
    if gap == 0 or open_.all():
        return flood(open_, ALL_ONE, most)
    grown = cv2.distanceTransform(open_, cv2.DIST_L2, 5) <= (gap + SLANT) / 2
    need = np.full((2, 256), NEVER, np.uint8)
    need[:, 1] = 2
    return flood(open_ * (2 - grown.view(np.uint8)), need, most)


CLOSINGS = {"trapped_ball": trapped_ball, "morphology": morphology}
