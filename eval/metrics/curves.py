"""Thin curves with distance transforms: the form in which strokes and edges are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from skimage.morphology import skeletonize

from eval.metrics.soft_edges import Level, pyramid

TOLERANCE = 0.0075  # of the diagonal
STROKE_LEVEL = 0.5  # sketch pixels of at least this value are stroke


@dataclass(frozen=True)
class Curve:
    """A thin curve, every pixel's distance to it, and its strength."""

    mask: np.ndarray  # (H,W) bool
    distance: np.ndarray  # (H,W) float32, px; the image's diagonal if the curve is empty
    tone: np.ndarray | None = None  # (H,W) float32 in [0,1], the soft edges that it was thinned from; None without tones
    sides: Curve | None = None  # outlines of the same strokes, if these are wide

    @cached_property
    def soft(self) -> np.ndarray:
        """Soft edges (H,W) float32 in [0,1]: the tones if there are any, else a Gaussian profile across the curve.

        The profile's standard deviation is the tolerance, independent of the strokes' width.
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
    """The curve of a thin mask, with exact Euclidean distances.

    Args:
        mask: (H,W) bool.
        tone: (H,W) in [0,1], the soft edges that it was thinned from.
        sides: Outlines of the same strokes.
    """
    if not mask.any():
        return Curve(mask, np.full(mask.shape, diagonal(mask.shape), np.float32), tone, sides)
    away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's last digits depend on the array's memory alignment; squared distances on a grid are whole numbers
    return Curve(mask, np.sqrt(np.rint(away * away)), tone, sides)


def stroke_curve(sketch: np.ndarray, toned: bool = False) -> Curve:
    """The centre lines of a sketch (H,W) with values in [0, 1], 1 = stroke.

    With `toned` the values are kept as the strength of the edges, unless all are 0 or 1. Raises ValueError for another
    shape, a value outside the range, or NaN.
    """
    check_sketch(sketch)
    soft = toned and bool(((sketch > 0.0) & (sketch < 1.0)).any())
    return curve_of(skeletonize(sketch >= STROKE_LEVEL), np.ascontiguousarray(sketch, np.float32) if soft else None)


def drawing_curve(sketch: np.ndarray) -> Curve:
    """The centre lines of a drawing, with its strokes' sides if some stroke is wider than twice the tolerance.

    A stroke may depict the border between two areas, or a line of the image. Edges of a line lie at its two sides, and
    those of a wide line are too far from its centre. Argument and errors as for `stroke_curve`.
    """
    check_sketch(sketch)
    ink = sketch >= STROKE_LEVEL
    depth = cv2.distanceTransform(ink.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    wide = depth.max() - 0.5 > tolerance_px(ink.shape) and not ink.all()
    return curve_of(skeletonize(ink), sides=curve_of(ink & (depth <= 1.0)) if wide else None)


def check_sketch(sketch: np.ndarray) -> None:
    """Raise ValueError unless the sketch is (H,W) with values in [0, 1]."""
    if sketch.ndim != 2:
        raise ValueError(f"sketch has shape {sketch.shape}: it must be (H, W)")
    if not (np.min(sketch) >= 0.0 and np.max(sketch) <= 1.0):
        raise ValueError("sketch has values outside [0, 1] or NaN")
