"""Estimation of the ground of a photographed drawing: the paper's brightness under shadows, gradients and vignettes.

Strokes are narrower than REACH of the picture's side, so a closing with a window that wide removes them and preserves
the edges of shadows. A wider part that is as dark as ink and has a sharp edge is a filled shape, or at the picture's
border the table that the paper lies on. Everything is computed on a small copy (side at most WORKING) except the
closing of an unevenly lit picture, which has to follow the edge of a shadow to the pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

WORKING = 320  # px, longer side of the small copy
REACH = 0.1  # of the shorter side: largest width of a stroke
SHADOW = 0.45  # of the paper's brightness: wide parts with sharp edges that are darker are ink or table, not shadow
SOFT = 0.75  # brightness across an edge, dark side over light side, from which on the edge is soft
FRAMED, ENCLOSED = 0.4, 0.95  # shares of the picture's border that a dark table takes at least, and a lighter one
STRIP = 0.025  # of the shorter side: a visible table is wider, a frame drawn at the border is narrower
ALIKE = 0.8  # brightness of the darkest ink over that of a filled shape, from which on the shape is that ink
WIDER = 0.2  # share of the strokes' area that may be wider than they usually are
NEAR = 0.85  # a mean this much below the closing is of the paper at another side of a shadow's edge
JOINED = 0.3  # share of a dark part's outline that continues at its brightness, from which on it is no stroke
LIGHTER = 10  # grey levels above the paper that are no noise
UNSTROKED = 0.8  # of the ground's brightness: lighter pixels hold no stroke


@dataclass(frozen=True)
class Ground:
    """The background of the strokes."""

    light: np.ndarray  # (H, W) float32, the paper's brightness
    table: np.ndarray  # (H, W) bool, True = table, not paper
    uneven: bool  # whether the paper's brightness varies
    lines: float  # share of the picture that is narrow and lighter than the paper around it


def find_ground(grey: np.ndarray, tolerance: float) -> Ground | None:
    """Estimate the ground of a drawing with dark strokes on light paper.

    Args:
        grey: (H, W) uint8.
        tolerance: Difference in grey levels up to which the ground counts as even.

    Returns:
        The ground, or None if it is even.
    """
    step = -(-max(grey.shape) // WORKING)
    bright, dark = _sampled(cv2.dilate, grey, step), _sampled(cv2.erode, grey, step)
    window = _window(bright.shape)
    closed = _close_beyond(bright, window)
    table, filled = _wide(closed, level_of(dark, 0.001))
    covered = table | filled
    paper = closed[~_grown(covered, 2)]  # without the soft edges of what covers it
    if not paper.size:
        return None
    uneven = level_of(paper, 0.95) - level_of(paper, 0.005) > tolerance
    if not (uneven or table.any()):
        return None
    light = _replaced(closed, covered)
    narrow = _stroke_window(bright, light, ~covered, window)
    exact = _exact(grey, step * (window - 1) + 1, step * (narrow - 1) + 1)
    full = grey.shape[::-1]
    near = cv2.resize(_grown(covered, 3).astype(np.uint8), full, interpolation=cv2.INTER_NEAREST) > 0
    exact[near] = cv2.resize(light, full, interpolation=cv2.INTER_LINEAR)[near]
    mean = _paper_mean(cv2.resize(grey, bright.shape[::-1], interpolation=cv2.INTER_AREA), dark, light, covered, narrow)
    mean = cv2.resize(mean, full, interpolation=cv2.INTER_LINEAR)
    light = np.where((mean < exact) & (mean > NEAR * exact), mean, exact)
    table = cv2.resize(_grown(table, 2).astype(np.uint8), full, interpolation=cv2.INTER_NEAREST) > 0
    return Ground(light, table, uneven, _light_lines(closed, window))


def _light_lines(closed: np.ndarray, window: int) -> float:
    """Measure the share of a closed picture (h, w) uint8 that is narrow and lighter than its surroundings."""
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((window, window), np.uint8))
    return float((closed > 1.1 * opened + LIGHTER).mean())


def evened(grey: np.ndarray, ground: Ground) -> np.ndarray:
    """Correct the picture (H, W) uint8 to even light, and replace the table by paper."""
    paper = float(np.quantile(ground.light[:: max(1, len(ground.light) // WORKING)], 0.95))
    even = np.rint(np.minimum(grey * (paper / np.maximum(ground.light, 1)), 255)).astype(np.uint8)
    even[ground.table] = round(paper)
    return even


def _stroke_window(grey: np.ndarray, light: np.ndarray, paper: np.ndarray, window: int) -> int:
    """Find the side in px, at most `window`, of the smallest square that is wider than nearly all strokes."""
    stroke = ((grey < UNSTROKED * light) & paper).astype(np.uint8)
    area = int(stroke.sum())
    for side in range(3, window, 2):
        if cv2.morphologyEx(stroke, cv2.MORPH_OPEN, np.ones((side, side), np.uint8)).sum() <= WIDER * area:
            return min(side + 2, window)
    return window


def _exact(grey: np.ndarray, wide: int, narrow: int) -> np.ndarray:
    """Compute the ground (H, W) float32 at full resolution: closed by the narrow window, by the wide one at wide strokes.

    A corner of a shadow that only the narrow window fits into looks like a wide stroke; but the shadow continues
    next to it with the same brightness, where a stroke has paper on both sides.
    """
    closed, coarse = _close(grey, narrow), _close(grey, wide)
    count, parts = cv2.connectedComponents((closed < UNSTROKED * coarse).astype(np.uint8), connectivity=8)
    outer = cv2.dilate(parts.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
    inside, outline = parts > 0, (outer > 0) & (parts == 0)
    level = _means(parts[inside], closed[inside], count)
    outer = outer[outline]
    joined = _means(outer, np.abs(closed[outline] - level[outer]) < 0.1 * level[outer], count)
    stroke = joined < JOINED
    stroke[0] = False
    return np.where(stroke[parts], coarse, closed).astype(np.float32)


def _means(labels: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Average values (n,) by label (n,) to (count,); 0 for labels without values."""
    return np.bincount(labels, values, count) / np.maximum(np.bincount(labels, minlength=count), 1)


def level_of(grey: np.ndarray, share: float) -> int:
    """Return the grey level of a uint8 picture at a quantile."""
    counts = np.cumsum(cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel())
    return int(np.searchsorted(counts, share * counts[-1]))


def _sampled(pool, grey: np.ndarray, step: int) -> np.ndarray:
    """Pool blocks of step x step pixels to their extreme."""
    if step == 1:
        return grey
    return pool(grey, np.ones((step, step), np.uint8), anchor=(0, 0))[::step, ::step]


def _window(shape: tuple[int, ...]) -> int:
    return 2 * max(2, round(REACH * min(shape) / 2)) + 1


def _close(grey: np.ndarray, window: int) -> np.ndarray:
    return cv2.morphologyEx(grey, cv2.MORPH_CLOSE, np.ones((window, window), np.uint8))


def _close_beyond(grey: np.ndarray, window: int) -> np.ndarray:
    """Close with the border replicated outwards, so that a narrow strip of table at the border counts as wide."""
    wider = cv2.copyMakeBorder(grey, window, window, window, window, cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(_close(wider, window)[window:-window, window:-window])


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0


def _wide(closed: np.ndarray, darkest: int) -> tuple[np.ndarray, np.ndarray]:
    """Detect the table and filled shapes, both (h, w) bool, in a closed picture, which has no strokes."""
    table, filled = np.zeros(closed.shape, bool), np.zeros(closed.shape, bool)
    strip = np.ones((2 * round(STRIP * min(closed.shape)) + 1,) * 2, np.uint8)
    paper = level_of(closed, 0.95)
    for level, framed in ((SHADOW * paper, FRAMED), (UNSTROKED * paper, ENCLOSED)):
        closed = _replaced(closed, table | filled)
        for part, sharp in _sharp_parts(closed, level):
            deep = cv2.erode(part.astype(np.uint8), strip)  # the outside of the picture counts as part
            if np.concatenate([deep[0], deep[-1], deep[:, 0], deep[:, -1]]).mean() >= framed:
                table |= part
            elif sharp < SHADOW or darkest >= ALIKE * float(np.median(closed[part])):
                filled |= part
    return table, filled


def _sharp_parts(closed: np.ndarray, level: float) -> Iterator[tuple[np.ndarray, float]]:
    """Yield connected parts (h, w) bool darker than `level`, with the brightness ratio across their sharp edges."""
    ring = np.ones((5, 5), np.uint8)
    edge = (cv2.erode(closed, ring) + 1.0) / (cv2.dilate(closed, ring) + 1.0)
    count, parts = cv2.connectedComponents((closed < level).astype(np.uint8), connectivity=4)
    for number in range(1, count):
        part = parts == number
        rim = part & (cv2.erode(part.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
        sharp = float(np.median(edge[rim])) if rim.any() else 1.0
        if sharp <= SOFT:
            yield part, sharp


def _replaced(closed: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Replace parts covered by table or ink by the brightness of the nearest paper, as float32."""
    if not covered.any():
        return closed.astype(np.float32)
    near = _grown(covered, 2)
    near = covered if near.all() else near
    _, label = cv2.distanceTransformWithLabels(near.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(label.max() + 1, np.float32)
    values[label[~near]] = closed[~near]
    return values[label]


def _paper_mean(grey: np.ndarray, dark: np.ndarray, light: np.ndarray, covered: np.ndarray, window: int) -> np.ndarray:
    """Average the stroke-free pixels around each pixel (h, w); 1e6 where there are too few."""
    bare = ((dark >= UNSTROKED * light) & ~covered).astype(np.uint8)
    bare = cv2.erode(bare, np.ones((3, 3), np.uint8)).astype(np.float32)  # without the strokes' soft edges
    size = (2 * window + 7,) * 2
    share = cv2.blur(bare, size, borderType=cv2.BORDER_REFLECT)
    total = cv2.blur(bare * grey, size, borderType=cv2.BORDER_REFLECT)
    return np.where(share > 0.1, total / np.maximum(share, 1e-6), 1e6).astype(np.float32)
