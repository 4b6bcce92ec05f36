"""Changes to strokes: their width, gaps, and missing pieces."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ragaf_exp.sketch.base import thinned

INK, HALO = 0.5, 0.1  # lower bounds of a stroke's pixel, and of a pixel of its soft rim
PIECE = 0.04  # length of a gap, as a fraction of the shorter side
SHORTEST = 2.0  # smallest length of a gap in pixels


def change_width(sketch: np.ndarray, change: float) -> np.ndarray:
    """Make strokes (H,W) wider by `change` pixels, or thinner if it is negative; a stroke's centre line always stays.

    Fractions of a pixel are interpolated, like the soft rim of a drawn line.
    """
    radius, part = divmod(abs(change) / 2, 1)
    grow = cv2.dilate if change > 0 else cv2.erode
    less, more = (grow(sketch, _disc(int(radius) + i)) if radius + i else sketch for i in (0, 1))
    changed = less + np.float32(part) * (more - less)
    return changed if change > 0 else np.maximum(changed, sketch * thinned(sketch > INK))


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def erase_pieces(sketch: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Erase discs of a fixed size at random positions on strokes.

    Args:
        sketch: (H,W) float32 in [0,1].
        share: Approximate share of the strokes' length to erase.
        rng: Random generator.

    Returns:
        (H,W) float32 in [0,1].
    """
    inked = np.flatnonzero(sketch > INK)
    piece = max(SHORTEST, PIECE * min(sketch.shape))
    count = rng.poisson(share * _length(sketch) / piece) if len(inked) else 0
    out = sketch.copy()
    for position in rng.choice(inked, min(count, len(inked)), replace=False):
        y, x = divmod(int(position), sketch.shape[1])
        cv2.circle(out, (x * 16, y * 16), math.ceil(piece * 8), 0.0, cv2.FILLED, shift=4)  # in sixteenths
    return out


def _length(sketch: np.ndarray) -> float:
    """Estimate the length of all strokes in pixels: half the length of their outline."""
    ink = (sketch > INK).astype(np.uint8)
    core = cv2.erode(ink, _disc(1))
    return (cv2.countNonZero(ink) - cv2.countNonZero(core)) / 2


def drop(sketch: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Remove connected pieces at random, except the largest.

    Args:
        sketch: (H,W) float32 in [0,1].
        probability: Probability that a piece is removed.
        rng: Random generator.

    Returns:
        (H,W) float32 in [0,1].
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((sketch > HALO).astype(np.uint8), connectivity=8)
    if count <= 2:  # the paper is the first
        return sketch
    removed = rng.random(count) < probability
    removed[[0, 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())]] = False
    rim = cv2.dilate(removed[labels].astype(np.uint8), _disc(1)) > 0  # includes pixels too faint to belong to a piece
    return np.where(rim & ((labels == 0) | removed[labels]), np.float32(0), sketch)
