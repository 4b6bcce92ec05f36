"""Thin curves with their distances: what strokes and edges become before they are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from skimage.morphology import skeletonize

from eval.metrics.soft_edges import Level, pyramid

TOLERANCE = 0.0075  # of the diagonal
STROKE_LEVEL = 0.5  # a sketch value from which a pixel is stroke


@dataclass(frozen=True)
class Curve:
    """A thin curve, the distance of every pixel to it, and how strong it is."""

    mask: np.ndarray  # (H,W) bool
    distance: np.ndarray  # (H,W) float32, px; the diagonal everywhere where the curve is empty
    tone: np.ndarray | None = None  # (H,W) float32 in [0,1], the soft edges it is the middle of; None: it has none
    sides: Curve | None = None  # another reading of the same strokes: their outlines; None: there is none

    @cached_property
    def soft(self) -> np.ndarray:
        """Soft edges (H,W) float32 in [0,1]: the tones, or where there are none a Gaussian profile across the curve
        with the tolerance as its standard deviation, whatever the width of the strokes was.
        """
        if self.tone is not None:
            return self.tone
        return cv2.exp(self.distance**2 * np.float32(-0.5 / tolerance_px(self.mask.shape) ** 2))

    @cached_property
    def levels(self) -> list[Level]:
        """The soft edges at every scale, for `eval.metrics.soft_edges.ms_ssim`."""
        return pyramid(self.soft)


def diagonal(shape: tuple[int, ...]) -> float:
    """Length in px of the diagonal of an image of shape (H,W,...)."""
    return float(np.hypot(shape[0], shape[1]))


def tolerance_px(shape: tuple[int, ...]) -> float:
    """The tolerance in px for an image of shape (H,W,...): 0.75 % of the diagonal, at least 1."""
    return max(1.0, TOLERANCE * diagonal(shape))


def curve_of(mask: np.ndarray, tone: np.ndarray | None = None, sides: Curve | None = None) -> Curve:
    """The curve of a thin mask (H,W) bool, with exact Euclidean distances."""
    if not mask.any():
        return Curve(mask, np.full(mask.shape, diagonal(mask.shape), np.float32), tone, sides)
    away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's last digits hang on where the array lies in memory; squares of distances on a grid are whole numbers
    return Curve(mask, np.sqrt(np.rint(away * away)), tone, sides)


def stroke_curve(sketch: np.ndarray, toned: bool = False) -> Curve:
    """The centre lines of a sketch (H,W) with values in [0, 1], 1 = stroke.

    toned: its values say how strong an edge is and are kept; where all are 0 or 1 they don't. Raises ValueError for
    another shape, a value outside the range, or NaN.
    """
    check_sketch(sketch)
    soft = toned and bool(((sketch > 0.0) & (sketch < 1.0)).any())
    return curve_of(skeletonize(sketch >= STROKE_LEVEL), np.ascontiguousarray(sketch, np.float32) if soft else None)


def drawing_curve(sketch: np.ndarray) -> Curve:
    """The centre lines of a drawing, and its strokes' sides where some stroke is wider than twice the tolerance.

    A stroke stands for the border between two areas, or is a line that the image shows as one: then its edges lie at
    the line's two sides, and a wide line's are too far from its centre. Arguments and errors as `stroke_curve` has them.
    """
    check_sketch(sketch)
    ink = sketch >= STROKE_LEVEL
    depth = cv2.distanceTransform(ink.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    wide = depth.max() - 0.5 > tolerance_px(ink.shape) and not ink.all()
    return curve_of(skeletonize(ink), sides=curve_of(ink & (depth <= 1.0)) if wide else None)


def check_sketch(sketch: np.ndarray) -> None:
    """ValueError unless it is (H,W) with values in [0, 1]."""
    if sketch.ndim != 2:
        raise ValueError(f"sketch has shape {sketch.shape}: it must be (H, W)")
    if not (np.min(sketch) >= 0.0 and np.max(sketch) <= 1.0):
        raise ValueError("sketch has values outside [0, 1] or NaN")
