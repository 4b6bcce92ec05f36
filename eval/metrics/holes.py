"""Metrics of inpainted images within the hole. Images are (H,W,3) uint8, a mask is (H,W) bool, True = hole."""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from eval.metrics.image import check_window

_ROUNDING = 1.0 / 12.0  # squared error, in squared levels, of rounding to 8 bits


def _error(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Differences (K,3) float64 of the pixels in the mask. Raises ValueError for an empty mask or other shapes."""
    if image.shape != truth.shape or image.shape[:2] != mask.shape:
        raise ValueError(f"image {image.shape}, truth {truth.shape} and mask {mask.shape} differ in size")
    if not mask.any():
        raise ValueError("the mask is empty: a metric of its pixels is undefined")
    return image[mask].astype(np.float64) - truth[mask]


def psnr_hole(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Compute the PSNR in dB of the pixels in the hole.

    Args:
        image: (H,W,3) uint8.
        truth: (H,W,3) uint8.
        mask: (H,W) bool, True = hole.

    Returns:
        Decibels, at most 58.9, as of `eval.metrics.image.psnr`.
    """
    error = float((_error(image, truth, mask) ** 2).mean())
    return float(10 * np.log10(255.0**2 / max(error, _ROUNDING)))


def l1_hole(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Compute the mean absolute error of the pixels in the hole, on [0, 1].

    Args:
        image: (H,W,3) uint8.
        truth: (H,W,3) uint8.
        mask: (H,W) bool, True = hole.

    Returns:
        The error.
    """
    return float(np.abs(_error(image, truth, mask)).mean() / 255)


def ssim_hole(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Compute the mean over the hole of the local SSIM, whose windows also see the pixels around it.

    Args:
        image: (H,W,3) uint8.
        truth: (H,W,3) uint8.
        mask: (H,W) bool, True = hole.

    Returns:
        SSIM in [-1, 1], with 7x7 uniform windows as `eval.metrics.image.ssim`.
    """
    _error(image, truth, mask)
    check_window(image)
    _, local = structural_similarity(truth, image, channel_axis=2, data_range=255, win_size=7, full=True)
    return float(local[mask].mean())


def kept_unchanged(image: np.ndarray, given: np.ndarray, mask: np.ndarray) -> float:
    """Return 1 if no byte outside the hole changed, else 0.

    Args:
        image: (H,W,3) uint8, the result.
        given: (H,W,3) uint8, the input.
        mask: (H,W) bool, True = hole.

    Returns:
        1.0 or 0.0.
    """
    return float((image[~mask] == given[~mask]).all())
