"""Depth of each pixel between strokes, and the openings that count as gaps: the inputs of flooding."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from ragaf_exp.regions.flooding import NEVER, flood

STEPS = 8.0  # most depth steps per pixel: finer steps mean fewer ties
ALL_ONE = np.full((2, 256), NEVER, np.uint8)  # basins that meet are always merged
Flooding = tuple[np.ndarray, np.ndarray]  # arguments `depth` and `need` of `flood`
# An opening of depth s is a gap if both sides are at least `a s + b` pixels deep. Towards an area at the picture's
# rim the bound is lower: an object merged with its background is worse than one in two parts.
INSIDE, ACROSS = (4.0, 1.0), (1.5, 0.5)
SLANT = 2.6  # pixels that an opening may be wider than `gap`: its depth is measured from the middle of strokes


def areas(stroke: np.ndarray, closing: str, gap: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Partition the picture into areas separated by strokes.

    Args:
        stroke: (H,W) bool.
        closing: A key of CLOSINGS.
        gap: Approximate width in pixels up to which gaps are closed.
        most: Number of areas to return, the largest.

    Returns:
        Labels and areas, as `flood`.
    """
    open_ = (~stroke).view(np.uint8)
    if gap == 0 or open_.all():  # without a stroke there is no distance
        return flood(open_, ALL_ONE, most)
    return flood(*CLOSINGS[closing](cv2.distanceTransform(open_, cv2.DIST_L2, 5), gap), most)


def trapped_ball(distance: np.ndarray, gap: float) -> Flooding:
    """Close gaps with wide areas on both sides; a narrow opening between narrow areas, such as a neck, stays open.

    Args:
        distance: (H,W) float32, distance to the nearest stroke in pixels, 0 = stroke.
        gap: Approximate width in pixels up to which gaps are closed.
    """
    steps, deepest, need = _scale(gap)
    depth = cv2.convertScaleAbs(distance, alpha=steps, beta=-0.499)  # rounded down, and clipped to 255
    return np.minimum(depth, deepest), need


@lru_cache(maxsize=16)
def _scale(gap: float) -> tuple[float, np.uint8, np.ndarray]:
    """Return depth steps per pixel, the depth in steps beyond which nothing is distinguished, and `flood`'s `need`."""
    widest = (gap + SLANT) / 2  # depth in the middle of the widest gap
    deepest = max(a * widest + b for a, b in (INSIDE, ACROSS))
    steps = min(STEPS, (NEVER - 1) / (deepest + 1))
    saddle = np.arange(256) / steps
    need = [np.where(saddle <= widest, np.ceil((a * saddle + b) * steps), NEVER) for a, b in (INSIDE, ACROSS)]
    return steps, np.uint8(np.ceil(deepest * steps)), np.minimum(need, NEVER).astype(np.uint8)


def morphology(distance: np.ndarray, gap: float) -> Flooding:
    """Close every opening up to about `gap` pixels wide, necks and corridors included.

    Strokes are dilated by half a gap, which separates areas, and the areas grow back; an area that is covered
    completely stays one. (A closing by a disc alone would leave gaps in thin lines open.)

    Args:
        distance: (H,W) float32, distance to the nearest stroke in pixels, 0 = stroke.
        gap: Approximate width in pixels up to which gaps are closed.
    """
    beyond = (distance > (gap + SLANT) / 2).view(np.uint8)
    need = np.full((2, 256), NEVER, np.uint8)
    need[:, 1] = 2
    return (distance > 0).view(np.uint8) + beyond, need


CLOSINGS = {"trapped_ball": trapped_ball, "morphology": morphology}
