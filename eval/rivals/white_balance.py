"""Rivals of white balance: the light is estimated from the image's statistics and divided out (von Kries).

Estimates are made on linear light. Shades of gray: Finlayson and Trezzi 2004; p = 1 is gray world, infinity white patch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragaf_exp.data.light import to_linear, to_srgb

SATURATED = 0.98  # pixels with a channel above are clipped and say nothing of the light
POWER = 6.0
PATCH = 99.0  # percentile that white patch takes as the maximum


def minkowski(image: np.ndarray, power: float) -> np.ndarray:
    """Divide an image (H,W,3) uint8 by its Minkowski mean of this power, keeping its green level."""
    linear = to_linear(image)
    valid = linear[(linear < SATURATED).all(-1)]
    valid = valid if len(valid) else linear.reshape(-1, 3)
    return _divided(linear, (valid**power).mean(0) ** (1 / power))


def gray_world(image: np.ndarray) -> np.ndarray:
    """Assume that the mean colour of an image (H,W,3) uint8 is grey (Buchsbaum 1980)."""
    return minkowski(image, 1.0)


def shades_of_gray(image: np.ndarray) -> np.ndarray:
    """Assume that the Minkowski mean of power 6 of an image (H,W,3) uint8 is grey."""
    return minkowski(image, POWER)


def white_patch(image: np.ndarray) -> np.ndarray:
    """Assume that the brightest value of each channel of an image (H,W,3) uint8 is white's (Land 1977)."""
    linear = to_linear(image)
    return _divided(linear, np.percentile(linear.reshape(-1, 3), PATCH, axis=0))


BALANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gray_world": gray_world, "white_patch": white_patch, "shades_of_gray": shades_of_gray,
}  # fmt: skip


def _divided(linear: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Divide by a light's colour (3,), normalised to its green."""
    light = np.maximum(light, 1e-4)
    return to_srgb(linear * (light[1] / light))
