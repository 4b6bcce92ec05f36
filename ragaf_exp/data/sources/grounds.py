"""Textured grounds of scenes: plain, gradient, stripes and noise, each around a named background colour."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS

STRENGTH = (10.0, 26.0)  # amplitude of a texture, in levels of 255
PERIOD = (5.0, 14.0)  # of stripes, in 64ths of the side
GRAIN = (2.0, 6.0)  # wave length of noise, in 64ths of the side
Wave = Callable[[np.random.Generator, int], np.ndarray]  # -> (size, size) float in [-1, 1]


def _gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    angle = rng.random() * 2 * np.pi
    along = x * np.cos(angle) + y * np.sin(angle)
    return along / np.abs(along).max()


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size] * (64 / size)
    angle, phase = rng.random() * np.pi, rng.random() * 2 * np.pi
    period = PERIOD[0] + rng.random() * (PERIOD[1] - PERIOD[0])
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + phase)
    return np.clip(2 * wave, -1, 1)  # flat tops with soft edges


def _noise(rng: np.random.Generator, size: int) -> np.ndarray:
    sigma = (GRAIN[0] + rng.random() * (GRAIN[1] - GRAIN[0])) * size / 64 / 2
    field = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.clip(field / (2 * field.std()), -1, 1)


def _plain(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.zeros((size, size))


WAVES: dict[str, Wave] = {"plain": _plain, "gradient": _gradient, "stripes": _stripes, "noise": _noise}


def ground(rng: np.random.Generator, kind: str, background: str, size: int) -> np.ndarray:
    """Render a ground.

    Args:
        rng: Random generator.
        kind: A key of WAVES.
        background: Name of a background colour, which is the ground's mean.
        size: Side in pixels.

    Returns:
        (size, size, 3) float32 in [0, 255].
    """
    strength = STRENGTH[0] + rng.random() * (STRENGTH[1] - STRENGTH[0])
    tint = 1 + 0.3 * (rng.random(3) - 0.5)
    change = strength * WAVES[kind](rng, size)[..., None] * tint
    # the brightest backgrounds have no room above
    base = np.minimum(np.array(BACKGROUND_COLOURS[background], np.float32), 252 - strength)
    return np.clip(base + change, 0, 255).astype(np.float32)
