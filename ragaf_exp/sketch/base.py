"""What the extractors share: pictures of any kind to [0,1], blur, thinning."""

from __future__ import annotations

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError


def to_unit(image: np.ndarray) -> np.ndarray:
    """Float32 in [0,1], same shape. Floats are cut off at 0 and 1, NaN is 0; integers count as shares of their range.

    Integers of more than 16 bits hold 8 or 16 bits wherever that is enough for their largest value, since no picture
    format fills 32 of them, but np.asarray(list) and sums make them.
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
    """A picture of any dtype as float32 (H,W,C) in [0,1], C = 1 (grey) or 3 (RGB); an alpha channel goes on white.

    image: (H,W), or (H,W,C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. UserError for another shape.
    """
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] > 4):
        raise UserError(f"sketch: a picture of shape {image.shape}; must be (H,W) or (H,W,1 to 4), none of them 0")
    unit = to_unit(np.atleast_3d(image))
    if unit.shape[2] in (1, 3):
        return unit
    colour, alpha = unit[..., :-1], unit[..., -1:]
    return colour * alpha + (1 - alpha)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """RGB in [0,1], float32 (H,W,3), of any picture that `to_colour` takes."""
    colour = to_colour(image)
    return np.ascontiguousarray(np.broadcast_to(colour, (*colour.shape[:2], 3)))


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luma in [0,1], float32 (H,W), of any picture that `to_colour` takes."""
    colour = to_colour(image)
    if colour.shape[2] == 1:
        return colour[..., 0]
    return cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with a mirrored border; sigma in pixels, 0 = unchanged."""
    return cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma > 0 else picture


def thinned(stroke: np.ndarray) -> np.ndarray:
    """Strokes (H,W) bool as lines one pixel wide, connected as they were (Zhang and Suen 1984)."""
    from skimage.morphology import skeletonize  # slow to import, and few need it

    return skeletonize(stroke)
