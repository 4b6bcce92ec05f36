"""Colour corrections of a gain and a power of each channel in linear light: fitting and applying them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.data.light import Light

ITERATIONS = 5  # of the robust fit
SPREAD = 0.03  # residual in log light at which a pixel's weight is one half
FLOOR = 0.02  # linear light below which noise dominates
CLIPPED = 254 / 127.5 - 1  # value from which on a channel may be clipped


def fit_powers(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Fit wanted = gain * given^power to each channel in linear light, by reweighted least squares on logarithms.

    Args:
        given: (B,3,H,W) in [-1,1].
        wanted: (B,3,H,W) in [-1,1].

    Returns:
        Log gains and powers, each (B,3,1).
    """
    x, y = (_linear(image).flatten(2) for image in (given, wanted))  # (B,3,P)
    # clipped and dark pixels say nothing of the light
    valid = ((x > FLOOR) & (x < 0.97) & (y > FLOOR) & (y < 0.97)).float() + 1e-6
    x, y = x.clamp(min=1e-3).log(), y.clamp(min=1e-3).log()
    weight = valid
    for _ in range(ITERATIONS):
        total = weight.sum(2, keepdim=True)
        mean_x, mean_y = (weight * x).sum(2, keepdim=True) / total, (weight * y).sum(2, keepdim=True) / total
        spread = (weight * (x - mean_x) ** 2).sum(2, keepdim=True) / total
        slope = (weight * (x - mean_x) * (y - mean_y)).sum(2, keepdim=True) / total
        power = ((slope + 0.01) / (spread + 0.01)).clamp(0.5, 2.0)  # a flat channel keeps its power of 1
        gain = mean_y - power * mean_x
        weight = valid / (1 + ((y - gain - power * x) / SPREAD) ** 2)
    return gain, power


def apply_powers(given: Tensor, gain: Tensor, power: Tensor) -> Tensor:
    """Apply log gains and powers (B,3,1) to an image.

    Args:
        given: (B,3,H,W) in [-1,1].
        gain: Log gains.
        power: Powers.

    Returns:
        (B,3,H,W) in [-1,1].
    """
    x = _linear(given).clamp(min=1e-6).log()
    linear = (gain[..., None] + power[..., None] * x).exp().clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 2 - 1


def with_highlights(corrected: Tensor, given: Tensor, output: Tensor) -> Tensor:
    """Take the network's output where a channel of the given image is clipped, unless that is darker.

    A clipped channel says only how bright the scene was at least, so the correction of its value is a lower bound.

    Args:
        corrected: Corrected image, (B,3,H,W) in [-1,1].
        given: The image before the correction, likewise.
        output: The network's image, likewise.

    Returns:
        (B,3,H,W).
    """
    return torch.where(given >= CLIPPED, torch.maximum(corrected, output), corrected)


def _linear(image: Tensor) -> Tensor:
    """SRGB (B,3,H,W) in [-1,1] to linear light in [0,1]."""
    x = (image.clamp(-1, 1) + 1) / 2
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def light_of(given: np.ndarray, right: np.ndarray) -> Light:
    """The wrong light of a given image, by the right one, both (H,W,3) uint8."""
    gain, power = fit_powers(to_tensor(given), to_tensor(right))
    return Light.undone_by(gain.flatten().exp().tolist(), float(power.mean()))


def to_tensor(picture: np.ndarray) -> Tensor:
    """(H,W,3) uint8 -> (1,3,H,W) in [-1,1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
