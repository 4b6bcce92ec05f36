"""How deep each pixel lies between strokes, and which openings count as gaps: what areas are flooded by."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ragaf_exp.regions.flooding import NEVER, flood

STEPS = 8.0  # at most so many steps of depth a pixel: finer ones make fewer ties
ALL_ONE = np.full((2, 256), NEVER, np.uint8)  # no two basins that meet stay apart
Flooding = tuple[np.ndarray, np.ndarray]  # the depth and the need of `flood`
# An opening of depth s is a gap where both sides are at least `a s + b` pixels deep. Towards an area at the picture's
# rim the doubt is for the gap: a figure lost to its ground is worse than one in two parts.
INSIDE, ACROSS = (4.0, 1.0), (1.5, 0.5)
SLANT = 2.6  # pixels that an opening may be wider than `gap`: its depth is measured from the middle of strokes


def areas(stroke: np.ndarray, closing: str, gap: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Areas that strokes (H,W) bool part, gaps up to about `gap` pixels wide being closed: what `flood` returns.

    closing: a key of CLOSINGS.
    """
    open_ = (~stroke).view(np.uint8)
    if gap == 0 or open_.all():  # no stroke to measure a distance from
        return flood(open_, ALL_ONE, most)
    return flood(*CLOSINGS[closing](cv2.distanceTransform(open_, cv2.DIST_L2, 5), gap), most)


def trapped_ball(distance: np.ndarray, gap: float) -> Flooding:
    """Gaps are closed where both sides are wide enough; distance (H,W) float32 to the nearest stroke, 0 = stroke.

    A narrow opening between narrow areas is a neck or a corridor and stays open.
    """
    steps, deepest, need = _scale(gap)
    depth = cv2.convertScaleAbs(distance, alpha=steps, beta=-0.499)  # rounded down, and cut off at 255
    return np.minimum(depth, deepest), need


@lru_cache(maxsize=16)
def _scale(gap: float) -> tuple[float, np.uint8, np.ndarray]:
    """Depth steps a pixel, the depth in steps beyond which nothing is told apart, and what `flood` needs."""
    widest = (gap + SLANT) / 2  # depth in the middle of the widest gap
    deepest = max(a * widest + b for a, b in (INSIDE, ACROSS))
    steps = min(STEPS, (NEVER - 1) / (deepest + 1))
    saddle = np.arange(256) / steps
    need = [np.where(saddle <= widest, np.ceil((a * saddle + b) * steps), NEVER) for a, b in (INSIDE, ACROSS)]
    return steps, np.uint8(np.ceil(deepest * steps)), np.minimum(need, NEVER).astype(np.uint8)


def morphology(distance: np.ndarray, gap: float) -> Flooding:
    """Every opening about `gap` pixels wide is closed, necks and corridors too; distance as above.

    The morphological way: areas are told apart where strokes grown by half a gap leave them open, then grow back; an
    area that is covered whole stays one. (A closing by a disc alone would leave gaps in thin lines open.)
    """
    beyond = (distance > (gap + SLANT) / 2).view(np.uint8)
    need = np.full((2, 256), NEVER, np.uint8)
    need[:, 1] = 2
    return (distance > 0).view(np.uint8) + beyond, need


CLOSINGS = {"trapped_ball": trapped_ball, "morphology": morphology}
