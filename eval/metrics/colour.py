"""Metrics of colour correction: angular error, CIEDE2000 and mean squared error on 0..255."""

from __future__ import annotations

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab


def delta_e_2000(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean CIEDE2000 difference of two sRGB images (H,W,3) or pixel lists (K,3), uint8."""
    return float(delta_e_2000_map(image, truth).mean())


def delta_e_2000_map(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """CIEDE2000 difference of each pixel of two sRGB arrays (...,3) uint8."""
    first, second = (rgb2lab(np.asarray(x, np.uint8).reshape(1, -1, 3)) for x in (image, truth))
    return deltaE_ciede2000(first, second).reshape(np.shape(image)[:-1])


def mse_255(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared error of two uint8 images on 0..255."""
    return float(((image.astype(np.float64) - truth) ** 2).mean())


def angular_error(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean angle in degrees between the pixels' RGB vectors; black pixels have no direction and are left out.

    As reported for sRGB white balance by Afifi et al. 2019 (CVPR, "When Color Constancy Goes Wrong").
    """
    first, second = image.reshape(-1, 3).astype(np.float64), truth.reshape(-1, 3).astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    lit = lengths > 0
    if not lit.any():
        return 0.0
    cosine = (first * second).sum(1)[lit] / lengths[lit]
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())
