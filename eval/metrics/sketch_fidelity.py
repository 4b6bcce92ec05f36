"""Does a generated image keep its sketch? Boundary precision, recall, F1 and Chamfer distance.

Two thin curves are compared: the sketch, thinned to one pixel, and the edges of the image (a Canny that sees
colour). Precision is the share of edge pixels with a stroke within the tolerance, recall the share of stroke
pixels with an edge within it. The matching goes by distance transforms, not one to one as in BSDS: both
curves are thin already, so the two differ only where parallel curves run closer than the tolerance, and the
transforms cost a thousandth of an assignment. A doubled edge within the tolerance of one stroke is therefore
not punished.

The tolerance is 0.75 % of the diagonal (Martin et al. 2004) but never below 1 px, the resolution of the
pixel grid: under it a curve drawn on the neighbouring pixel counts as missed. At 64 x 64, 0.75 % is 0.68 px,
so 1 px holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.morphology import skeletonize

TOLERANCE = 0.0075  # of the diagonal
STROKE_LEVEL = 0.5  # a sketch value from which a pixel is stroke

# Contrast of a step edge in CIE76 units (2.3 is just noticeable). An edge must reach HIGH somewhere and is
# followed down to LOW: paper grain, compression noise and shading stay below, neighbouring colours of a
# picture are far above.
HIGH, LOW = 18.0, 10.0
_SCALE = 8.0  # cv2.Canny takes 16-bit gradients: |a|, |b| < 128 and a 3x3 Sobel's gain of 4 keep below 2**15


@dataclass(frozen=True)
class Curve:
    """A thin curve and the distance of every pixel to it."""

    mask: np.ndarray  # (H,W) bool
    distance: np.ndarray  # (H,W) float32, px; the diagonal everywhere where the curve is empty


@dataclass(frozen=True)
class Fidelity:
    """How well the edges of an image follow a sketch."""

    precision: float
    recall: float
    f1: float
    chamfer: float  # mean of both directions' mean distances, as a share of the diagonal; 0 is best
    tolerance: float  # px, the one used


def diagonal(shape: tuple[int, ...]) -> float:
    """Length in px of the diagonal of an image of shape (H,W,...)."""
    return float(np.hypot(shape[0], shape[1]))


def tolerance_px(shape: tuple[int, ...]) -> float:
    """The tolerance in px for an image of shape (H,W,...): 0.75 % of the diagonal, at least 1."""
    return max(1.0, TOLERANCE * diagonal(shape))


def _curve(mask: np.ndarray) -> Curve:
    if not mask.any():
        return Curve(mask, np.full(mask.shape, diagonal(mask.shape), np.float32))
    return Curve(mask, cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def stroke_curve(sketch: np.ndarray) -> Curve:
    """The centre lines of a sketch (H,W) with values in [0, 1], 1 = stroke.

    Raises ValueError for another shape, a value outside the range, or NaN.
    """
    if sketch.ndim != 2:
        raise ValueError(f"sketch has shape {sketch.shape}: it must be (H, W)")
    if not (np.min(sketch) >= 0.0 and np.max(sketch) <= 1.0):
        raise ValueError("sketch has values outside [0, 1] or NaN")
    return _curve(skeletonize(sketch >= STROKE_LEVEL))


def edge_curve(image: np.ndarray) -> Curve:
    """The edges of a picture (H,W,3) uint8 by Canny (1986) on CIELAB.

    Gaussian smoothing of half the tolerance, Sobel per channel, at every pixel the channel with the
    strongest gradient (so that a border between two colours of one lightness is an edge), non-maximum
    suppression, hysteresis between LOW and HIGH. Raises ValueError for another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}: it must be uint8 (H, W, 3)")
    lab = cv2.cvtColor(np.multiply(image, 1 / 255, dtype=np.float32), cv2.COLOR_RGB2LAB)
    sigma = tolerance_px(image.shape) / 2.0
    lab = cv2.GaussianBlur(lab, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    dx, dy = (_sobel(lab, *order) for order in ((1, 0), (0, 1)))
    dx, dy = _strongest(dx, dy)
    gain = _step_gain(sigma)
    low, high = LOW * gain, HIGH * gain
    edges = cv2.Canny(np.rint(dx).astype(np.int16), np.rint(dy).astype(np.int16), low, high, L2gradient=True)
    return _curve(edges > 0)


def _sobel(lab: np.ndarray, x: int, y: int) -> np.ndarray:
    return cv2.Sobel(lab, cv2.CV_32F, x, y, ksize=3, scale=_SCALE, borderType=cv2.BORDER_REPLICATE)


def _strongest(dx: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients (H,W) of the channel that changes most at each pixel, from those of all channels (H,W,3)."""
    (x, *other_x), (y, *other_y) = cv2.split(dx), cv2.split(dy)
    best = cv2.magnitude(x, y)
    for next_x, next_y in zip(other_x, other_y, strict=True):
        power = cv2.magnitude(next_x, next_y)
        better = power > best
        for kept, found in ((x, next_x), (y, next_y), (best, power)):
            np.copyto(kept, found, where=better)
    return x, y


def _step_gain(sigma: float) -> float:
    """Response beside a step edge of height 1, so that thresholds mean contrast whatever the smoothing."""
    left, right = (math.erf(reach / (sigma * math.sqrt(2.0))) / 2.0 for reach in (0.5, 1.5))
    return 4.0 * _SCALE * (left + right)


def compare(strokes: Curve, edges: Curve) -> Fidelity:
    """Fidelity of an image's edges to a sketch's strokes, as the module's text defines it.

    Two empty curves agree perfectly. Where only one is empty nothing matches: precision, recall and F1 are 0
    and the Chamfer distance is the whole diagonal.
    """
    if strokes.mask.shape != edges.mask.shape:
        raise ValueError(
            f"sketch {strokes.mask.shape} and image {edges.mask.shape} differ in size: resize one of them"
        )
    tolerance = tolerance_px(strokes.mask.shape)
    empty = not strokes.mask.any(), not edges.mask.any()
    if any(empty):
        agree = float(all(empty))
        return Fidelity(agree, agree, agree, 1.0 - agree, tolerance)
    to_stroke, to_edge = strokes.distance[edges.mask], edges.distance[strokes.mask]
    # Distances are exact up to float rounding: 1e-3 px keeps a diagonal step of sqrt(2) on the side it
    # belongs to.
    precision, recall = (float(np.mean(d <= tolerance + 1e-3)) for d in (to_stroke, to_edge))
    f1 = 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0
    # in float64: a float32 sum depends on where the array happens to lie in memory
    means = (float(np.mean(d, dtype=np.float64)) for d in (to_stroke, to_edge))
    chamfer = sum(means) / (2.0 * diagonal(strokes.mask.shape))
    return Fidelity(precision, recall, f1, chamfer, tolerance)


def sketch_fidelity(sketch: np.ndarray, image: np.ndarray) -> Fidelity:
    """Fidelity of a picture (H,W,3) uint8 to the sketch (H,W) in [0, 1] it was made from."""
    return compare(stroke_curve(sketch), edge_curve(image))


def sketch_fidelity_set(
    sketches: list[np.ndarray], images: list[np.ndarray]
) -> tuple[list[Fidelity], list[Fidelity]]:
    """Fidelity of every image to its own sketch, and to the next item's: chance level.

    The next item's sketch stands for a shuffled one: a cyclic shift leaves no item with its own and needs no
    seed. A single item has no other's sketch, and its chance level is an empty list.
    """
    if len(sketches) != len(images):
        raise ValueError(f"{len(sketches)} sketches for {len(images)} images")
    strokes = [stroke_curve(s) for s in sketches]
    edges = [edge_curve(i) for i in images]
    own = [compare(s, e) for s, e in zip(strokes, edges, strict=True)]
    if len(strokes) < 2:
        return own, []
    return own, [compare(s, e) for s, e in zip(strokes[1:] + strokes[:1], edges, strict=True)]
