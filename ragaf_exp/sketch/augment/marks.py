"""Marks on a sheet besides strokes: specks and the paper's grain."""

from __future__ import annotations

import math

import cv2
import numpy as np

SMALL, LARGE = 0.5 / 64, 1.5 / 64  # radii of specks, as fractions of the shorter side
FAINTEST = 0.3  # a speck's darkness is between this and 1


def add_specks(sketch: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Add dots of random size and darkness; darker strokes stay.

    Args:
        sketch: (H,W) float32 in [0,1].
        share: Approximate share of the paper to cover.
        rng: Random generator.

    Returns:
        (H,W) float32 in [0,1].
    """
    height, width = sketch.shape
    side = min(height, width)
    area = math.pi * (SMALL**2 + SMALL * LARGE + LARGE**2) / 3 * side**2  # mean area of a speck
    count = rng.poisson(share * height * width / max(area, 1.0))
    layer = np.zeros_like(sketch)
    centres = zip(rng.integers(0, width, count), rng.integers(0, height, count), strict=True)
    styles = zip(rng.uniform(SMALL, LARGE, count), rng.uniform(FAINTEST, 1, count), strict=True)
    for (x, y), (radius, dark) in zip(centres, styles, strict=True):
        cv2.circle(layer, (int(x) * 16, int(y) * 16), round(radius * side * 16), float(dark), cv2.FILLED, shift=4)
    return np.maximum(sketch, layer)


def add_grain(sketch: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise, clipped to [0,1].

    Args:
        sketch: (H,W) float32 in [0,1].
        deviation: Standard deviation of the noise.
        rng: Random generator.

    Returns:
        (H,W) float32 in [0,1].
    """
    noise = rng.standard_normal(sketch.shape, np.float32)
    return np.clip(sketch + np.float32(deviation) * noise, 0, 1)
