"""Rivals of inpainting, removal and insertion. Images are (H,W,3) uint8, a mask is (H,W) bool, True = hole."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

RADIUS = 3.0  # pixels around a point that the OpenCV methods look at


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole by fast marching (Telea 2004), as OpenCV does."""
    return cv2.inpaint(image, mask.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole by fluid dynamics (Bertalmio et al. 2001), as OpenCV does."""
    return cv2.inpaint(image, mask.astype(np.uint8), RADIUS, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the hole by the biharmonic equation (Damelin and Hoang 2018), as scikit-image does."""
    hollow = np.where(mask[..., None], 0, image).astype(np.uint8)
    filled = inpaint_biharmonic(hollow, mask, channel_axis=-1)
    return np.where(mask[..., None], np.clip(np.rint(filled * 255), 0, 255), image).astype(np.uint8)


FILLS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "telea": telea, "navier_stokes": navier_stokes, "biharmonic": biharmonic,
}  # fmt: skip


def naive_paste(scene: np.ndarray, mask: np.ndarray, thing: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Scale the object to the hole's bounding box, keeping its aspect, and paste it over a Telea-filled scene.

    Args:
        scene: (H,W,3) uint8.
        mask: (H,W) bool, True = hole.
        thing: (h,w,3) uint8, the object's picture.
        alpha: (h,w) float in [0,1], its coverage.

    Returns:
        (H,W,3) uint8, equal to the scene outside the hole.
    """
    canvas = telea(scene, mask).astype(np.float32)
    box, inner = _bounds(mask), _bounds(alpha > 0.5)
    if box is None or inner is None:
        return scene.copy()
    thing, alpha = thing[inner].astype(np.float32), alpha[inner].astype(np.float32)
    rows, columns = (part.stop - part.start for part in box)
    scale = min(rows / thing.shape[0], columns / thing.shape[1])
    size = max(1, round(thing.shape[1] * scale)), max(1, round(thing.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    thing, cover = cv2.resize(thing, size, interpolation=how), cv2.resize(alpha, size, interpolation=how)[..., None]
    top, left = box[0].start + (rows - size[1]) // 2, box[1].start + (columns - size[0]) // 2
    part = canvas[top : top + size[1], left : left + size[0]]
    part += cover * (thing - part)
    return np.where(mask[..., None], np.rint(canvas), scene).astype(np.uint8)


def _bounds(mask: np.ndarray) -> tuple[slice, slice] | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else None
