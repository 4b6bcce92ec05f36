"""What strokes are like: their width, gaps in them, pieces that are missing."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ragaf_exp.sketch.base import thinned

INK, HALO = 0.5, 0.1  # above: a stroke's pixel; a pixel of a stroke's soft rim
PIECE = 0.04  # length of a gap, as a fraction of the shorter side
SHORTEST = 2.0  # pixels of it


def change_width(sketch: np.ndarray, change: float) -> np.ndarray:
    """Strokes (H,W) wider by so many pixels, or thinner where change is negative; a stroke's middle always stays.

    What is between two whole pixels is a mixture of both, as the soft rim of a drawn line is.
    """
    radius, part = divmod(abs(change) / 2, 1)
    grow = cv2.dilate if change > 0 else cv2.erode
    less, more = (grow(sketch, _disc(int(radius) + i)) if radius + i else sketch for i in (0, 1))
    changed = less + np.float32(part) * (more - less)
    return changed if change > 0 else np.maximum(changed, sketch * thinned(sketch > INK))


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def erase_pieces(sketch: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Without about this share of the strokes' length (H,W), in discs of a fixed size at random places of them."""
    places = np.flatnonzero(sketch > INK)
    piece = max(SHORTEST, PIECE * min(sketch.shape))
    count = rng.poisson(share * _length(sketch) / piece) if len(places) else 0
    out = sketch.copy()
    for place in rng.choice(places, min(count, len(places)), replace=False):
        y, x = divmod(int(place), sketch.shape[1])
        cv2.circle(out, (x * 16, y * 16), math.ceil(piece * 8), 0.0, cv2.FILLED, shift=4)  # in sixteenths
    return out


def _length(sketch: np.ndarray) -> float:
    """Of all strokes, in pixels: half of the outline of what is drawn."""
    ink = (sketch > INK).astype(np.uint8)
    core = cv2.erode(ink, _disc(1))
    return (cv2.countNonZero(ink) - cv2.countNonZero(core)) / 2


def drop(sketch: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Each connected piece (H,W) but the largest goes with this probability."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((sketch > HALO).astype(np.uint8), connectivity=8)
    if count <= 2:  # the paper is the first
        return sketch
    gone = rng.random(count) < probability
    gone[[0, 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())]] = False
    rim = cv2.dilate(gone[labels].astype(np.uint8), _disc(1)) > 0  # what is too faint for a piece goes with it
    return np.where(rim & ((labels == 0) | gone[labels]), np.float32(0), sketch)
