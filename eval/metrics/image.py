"""Pixel metrics between an image and its reference: MSE, PSNR, SSIM.

Only uint8 pictures are accepted: the range of a float array is unknown, and mistaking [0, 1] for [-1, 1] gives plausible
but wrong figures. MSE is on the scale [0, 1].
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from ragaf_exp.core.errors import TooSmall

_SSIM_WINDOW = 7


def _checked(image: np.ndarray, reference: np.ndarray) -> None:
    for name, array in (("image", image), ("reference", reference)):
        if array.dtype != np.uint8:
            raise ValueError(f"{name} is {array.dtype}: convert it to uint8, 0 to 255")
        if array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f"{name} has shape {array.shape}: it must be (H, W, 3)")
    if image.shape != reference.shape:
        raise ValueError(f"image {image.shape} and reference {reference.shape} differ in shape: resize one of them")


def mse(image: np.ndarray, reference: np.ndarray) -> float:
    """Mean squared error of two (H,W,3) uint8 pictures on the scale [0, 1]: 0 for equal ones, at most 1."""
    _checked(image, reference)
    difference = image.astype(np.float64) - reference.astype(np.float64)
    return float(np.mean((difference / 255.0) ** 2))


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two (H,W,3) uint8 pictures, with peak 255.

    Equal pictures have no finite PSNR, and one infinity would make any mean infinite. So the error has a floor, that of
    rounding to 8 bits (uniform over one step, 1/12 of a squared step), and PSNR is at most 58.9 dB.
    """
    rounding = 1.0 / (12.0 * 255.0**2)
    return float(-10.0 * np.log10(max(mse(image, reference), rounding)))


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity in [-1, 1] of two (H,W,3) uint8 pictures, with range 255 (Wang et al. 2004).

    skimage's version: 7x7 uniform windows inside the image, sample covariance, mean over the channels. Wang's 11x11
    Gaussian window, torchmetrics' default, gives other values, up to 0.03 lower on noisy photos; torchmetrics also
    includes windows over mirrored borders. Compare SSIM only between equal windows.
    """
    _checked(image, reference)
    check_window(image)
    return float(structural_similarity(reference, image, channel_axis=2, data_range=255, win_size=_SSIM_WINDOW))


def check_window(image: np.ndarray) -> None:
    """Raise TooSmall if an image (H,W,3) is smaller than SSIM's window."""
    if min(image.shape[:2]) < _SSIM_WINDOW:
        raise TooSmall(f"images: image {image.shape} is smaller than SSIM's {_SSIM_WINDOW}x{_SSIM_WINDOW} window; "
                       "give larger ones")  # fmt: skip


def seam_ratio(image: np.ndarray, patch: int) -> float:
    """Strength of block artefacts in a picture (H,W,3) uint8 that was generated in patches.

    The mean absolute difference of neighbouring pixels across borders `patch` pixels apart, divided by that of all other
    neighbours: about 1 without artefacts, above 1 with them. It is 1 for a constant picture and for patches of one pixel.
    """
    if patch < 2:
        return 1.0
    across, within = [], []
    for axis in (0, 1):
        change = np.abs(np.diff(image.astype(np.float64), axis=axis)).mean(axis=(1 - axis, 2))  # (H-1,) or (W-1,)
        border = np.arange(1, len(change) + 1) % patch == 0
        across.append(change[border])
        within.append(change[~border])
    inner = np.concatenate(within).mean()
    return float(np.concatenate(across).mean() / inner) if inner > 0 else 1.0
