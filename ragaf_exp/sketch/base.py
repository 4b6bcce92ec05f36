"""Shared operations of the extractors: conversion of images of any dtype to [0,1], blur, thinning."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError


def to_unit(image: np.ndarray) -> np.ndarray:
    """Convert to float32 in [0,1], same shape. Floats are clipped, NaN is 0; integers are divided by their full scale.

    The full scale of integers of more than 16 bits is that of 8 or 16 bits if their largest value fits, since no image
    format uses 32 bits, but np.asarray(list) and sums produce them.
    """
    if image.dtype == bool:
        return image.astype(np.float32)
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.float32(_full_scale(image))
    return np.clip(np.nan_to_num(image.astype(np.float32, copy=False)), 0, 1)


def _full_scale(image: np.ndarray) -> int:
    if image.dtype.itemsize <= 2:
        return np.iinfo(image.dtype).max
    largest = int(image.max())
    return next(scale for scale in (255, 65535, np.iinfo(image.dtype).max) if largest <= scale)


def to_colour(image: np.ndarray) -> np.ndarray:
    """Convert an image of any dtype to float32 in [0,1], with alpha composited over white.

    Args:
        image: (H,W), or (H,W,C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    Returns:
        (H,W,C) with C = 1 (grey) or 3 (RGB).

    Raises:
        UserError: The image has another shape.
    """
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] > 4):
        raise UserError(f"sketch: a picture of shape {image.shape}; must be (H,W) or (H,W,1 to 4), none of them 0")
    unit = to_unit(np.atleast_3d(image))
    if unit.shape[2] in (1, 3):
        return unit
    colour, alpha = unit[..., :-1], unit[..., -1:]
    return colour * alpha + (1 - alpha)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Convert any image that `to_colour` takes to RGB, float32 (H,W,3) in [0,1]."""
    colour = to_colour(image)
    return np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def to_grey(image: np.ndarray) -> np.ndarray:
    """Convert any image that `to_colour` takes to luma, float32 (H,W) in [0,1]."""
    colour = to_colour(image)
    if colour.shape[2] == 1:
        return colour[..., 0]
    return cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Apply a Gaussian blur with a mirrored border; sigma in pixels, 0 = unchanged."""
    return cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma > 0 else picture


def thinned(stroke: np.ndarray) -> np.ndarray:
    """Thin strokes (H,W) bool to lines one pixel wide, preserving connectivity (Zhang and Suen 1984)."""
    from skimage.morphology import skeletonize  # slow to import, and rarely needed

    return skeletonize(stroke)
