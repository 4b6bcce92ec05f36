"""What the extractors share."""

from __future__ import annotations

import cv2
import numpy as np


def to_unit(image: np.ndarray) -> np.ndarray:
    """Float32 in [0,1], same shape: integers over their type's range, floats cut off at 0 and 1, NaN as 0."""
    if image.dtype == bool:
        return image.astype(np.float32)
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.float32(np.iinfo(image.dtype).max)
    return np.clip(np.nan_to_num(image.astype(np.float32, copy=False)), 0, 1)


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luma in [0,1], float32 (H,W), of an RGB (H,W,3) or grey (H,W) or (H,W,1) picture of any dtype."""
    unit = to_unit(image)
    if unit.ndim == 2:
        return unit
    if unit.shape[2] == 1:
        return unit[..., 0]
    return cv2.cvtColor(np.ascontiguousarray(unit), cv2.COLOR_RGB2GRAY)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with a mirrored border; sigma in pixels, 0 = unchanged."""
    return cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) if sigma > 0 else picture
