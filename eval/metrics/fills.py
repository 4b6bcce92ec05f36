"""The interior of a mask and the pattern of its fill: plain, striped or dotted.

The fill is classified by the interior's lightness. Little variation is plain; otherwise the gradients of stripes share
one direction, and those of dots have all directions. Nothing is learnt. Below 64 px a side the patterns of the shape
scenes are finer than the pixels, and about a tenth of their true fills is misclassified.
"""

from __future__ import annotations

import cv2
import numpy as np

RIM = 1 / 64  # of the longer side: depth of the rim, at least 1 px
TEXTURE_STD = 1.5  # of L*, after smoothing: stripes 14 apart give 3.5 to 5, dots 3 to 4, grain at most 1.4
GRAIN = 1 / 128  # of the longer side: standard deviation of the smoothing before classification
STRIPE_COHERENCE = 0.5  # of the structure tensor: 1 = all gradients parallel, 0 = none preferred


def rim_px(shape: tuple[int, ...]) -> float:
    """Depth in px of an object's rim in an image of shape (H,W,...)."""
    return max(1.0, RIM * max(shape[:2]))


def interior(mask: np.ndarray, rim: float) -> np.ndarray:
    """The mask (H,W) bool without its rim of `rim` px; the deeper half of a thin mask, such as a ring.

    The result is not empty unless the mask is. Pixels beyond the array's border count as outside.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return depth > min(rim, 0.5 * float(depth.max()))


def hole(mask: np.ndarray, rim: float) -> np.ndarray:
    """Pixels (H,W) bool that the mask encloses but does not cover; none if they are nowhere `rim` px deep.

    A shallower hole is not that of a ring: rasterising a narrow notch of an outline may leave a pixel open.
    """
    outside = np.pad((~mask).astype(np.uint8), 1, constant_values=1)
    cv2.floodFill(outside, None, (0, 0), 0)
    depth = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return outside[1:-1, 1:-1].astype(bool) & (depth.max() >= rim)


def fill_of(lightness: np.ndarray, inside: np.ndarray, core: np.ndarray, side: int) -> str:
    """Classify the fill of an object as plain, striped or dotted.

    Grain is smoothed, and a fitted plane is subtracted, as shading is not a pattern.

    Args:
        lightness: (h,w) L* of the object's bounding box, 0 to 100.
        inside: (h,w) bool, its interior.
        core: (h,w) bool, a deeper interior that soft outlines don't reach, for the statistics.
        side: The whole image's longer side in px, which scales the smoothing.
    """
    tone = _levelled(_smoothed(lightness, inside, GRAIN * side), inside)
    if tone[core].std() < TEXTURE_STD:
        return "plain"
    gy, gx = np.gradient(tone)
    xx, yy, xy = (float((a[core] * b[core]).sum()) for a, b in ((gx, gx), (gy, gy), (gx, gy)))
    coherence = np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-12)
    return "striped" if coherence > STRIPE_COHERENCE else "dotted"


def _levelled(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Values (h,w) in the interior minus their least-squares plane; 0 elsewhere."""
    y, x = np.nonzero(inside)
    plane = np.stack([np.ones(len(x)), x, y], 1)
    slope, *_ = np.linalg.lstsq(plane, values[inside], rcond=None)
    level = np.zeros(inside.shape)
    level[inside] = values[inside] - plane @ slope
    return level


def _smoothed(values: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing of values (h,w) restricted to the interior (h,w) bool."""
    weight = inside.astype(np.float32)
    return cv2.GaussianBlur(values * weight, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-6)
