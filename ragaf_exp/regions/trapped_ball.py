"""Areas between strokes, told apart across gaps by trapped balls.

After Zhang, Chen, Zhang, Hu and Martin, "Vectorizing cartoon animations" (2009): a ball too big for a gap can't leave
an area through it. Where that cuts an area at a neck instead of a gap, the parts are put together again.
"""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.regions.borders import by_area, contract, crossings, follow
from ragaf_exp.regions.growth import CROSS, grow

CANDIDATES = 512  # areas looked at one by one; beyond that (noise) a speck goes with the strokes around it
# An opening is no gap if it is as wide as this share of an area's thickness less a pixel; inner: both off the rim.
THROAT, INNER_THROAT = 1.5, 0.5


def split_areas(stroke: np.ndarray, radius: int) -> tuple[np.ndarray, int]:
    """Areas that strokes part: label map (H,W) int16, -1 = stroke (or a speck beyond CANDIDATES), and their count.

    stroke (H,W) bool. radius: gaps in strokes up to 2 radius pixels wide are closed, between wide areas up to
    4 radius, at small ones up to radius; 0 = none. Every area is 4-connected, and one that strokes really enclose
    is never lost however thin. The largest comes first.
    """
    open_ = ~stroke
    labels, count = np.full(stroke.shape, -1, np.int16), 0
    for r in (2 * radius, radius, radius // 2) if stroke.any() else ():
        if r > 0:
            labels, count = _roll(labels, count, open_, r)
    labels = grow(labels, open_, radius)
    labels, count = _reclaim(labels, count, open_)
    labels, count = _rejoin(labels, count)
    return by_area(labels, count)[0], count


def _roll(labels: np.ndarray, count: int, open_: np.ndarray, radius: int) -> tuple[np.ndarray, int]:
    """Label what a square ball sweeps within each area not labelled yet."""
    ball = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    free = open_ & (labels < 0)
    centres, count = _components(cv2.erode(free.astype(np.uint8), ball), count)
    return np.where(free, cv2.dilate(centres, ball), labels), count


def _components(mask: np.ndarray, first: int) -> tuple[np.ndarray, int]:
    """4-connected components, the largest first, numbered from `first`: (H,W) int16, -1 = none; next number."""
    n, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")[: CANDIDATES - first]
    number = np.full(n, -1, np.int16)
    number[order + 1] = np.arange(first, first + len(order))
    return number[parts], first + len(order)


def _reclaim(labels: np.ndarray, count: int, open_: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the open pixels that no ball and no growth reached.

    A part that touches a labelled area without a stroke between joins it; the others are thin enclosed areas of
    their own.
    """
    left = open_ & (labels < 0)
    if not left.any():
        return labels, count
    n, parts = cv2.connectedComponents(left.astype(np.uint8), connectivity=4)
    beside = np.full(n, -1, np.int16)
    np.maximum.at(beside, parts[left], cv2.dilate(labels, CROSS)[left])
    labels = np.where(left, beside[parts], labels)
    if (beside[1:] >= 0).all():
        return labels, count
    own, total = _components(open_ & (labels < 0), count)
    return np.maximum(labels, own), total


def _rejoin(labels: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Put areas together that no gap parts but a neck or a corridor.

    In rounds: an area with an opening that is wide for its own thickness joins the one it opens to
    widest, and no other, so that what lies within a gap never ties its two sides together. Towards areas at the
    picture's rim the doubt is for the gap: a figure lost to its ground is worse than one in two parts.
    """
    pairs = crossings(labels, count)
    if not pairs[:-1, :-1].any():
        return labels, count
    thickness, inner = _thickness(labels, count), ~_at_rim(labels, count)
    group = np.arange(count)
    while True:
        opening = _wide_openings(pairs, thickness, inner)
        if not opening.any():
            return np.append(group, -1).astype(np.int16)[labels], len(opening)
        step = follow(np.where(opening.any(axis=1), opening.argmax(axis=1), np.arange(len(opening))))
        group, pairs = step[group], contract(pairs, np.append(step, step.max() + 1))
        thickest, all_inner = np.zeros(len(pairs) - 1), np.ones(len(pairs) - 1, bool)
        np.maximum.at(thickest, step, thickness)
        np.logical_and.at(all_inner, step, inner)
        thickness, inner = thickest, all_inner


def _wide_openings(pairs: np.ndarray, thickness: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """(N,N): the width of each opening from i to j that is no gap for i, else 0."""
    opening = pairs[:-1, :-1]
    share = np.where(inner[:, None] & inner, INNER_THROAT, THROAT)
    return np.where(opening >= share * (thickness[:, None] - 1), opening, 0)


def _thickness(labels: np.ndarray, count: int) -> np.ndarray:
    """(N,) how thick each area is where it is thickest, in pixels."""
    closed = cv2.copyMakeBorder((labels >= 0).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(closed, cv2.DIST_L2, 5)[1:-1, 1:-1]
    thickness = np.zeros(count + 1, np.float32)  # the last is index -1's
    np.maximum.at(thickness, labels.ravel(), 2 * depth.ravel() - 1)
    return thickness[:count]


def _at_rim(labels: np.ndarray, count: int) -> np.ndarray:
    """(N,) bool: which areas reach the picture's rim."""
    at_rim = np.zeros(count + 1, bool)
    at_rim[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    return at_rim[:count]
