"""What is on a sheet besides strokes: specks, and the paper's grain."""

from __future__ import annotations

import math

import cv2
import numpy as np

SMALL, LARGE = 0.5 / 64, 1.5 / 64  # radii of specks, as fractions of the shorter side
FAINTEST = 0.3  # a speck's darkness is between this and 1


def add_specks(sketch: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Dots that cover about this share of the paper (H,W); where a stroke is darker, it stays."""
    height, width = sketch.shape
    side = min(height, width)
    area = math.pi * (SMALL**2 + SMALL * LARGE + LARGE**2) / 3 * side**2  # a speck's, on average
    count = rng.poisson(share * height * width / max(area, 1.0))
    layer = np.zeros_like(sketch)
    places = zip(rng.integers(0, width, count), rng.integers(0, height, count), strict=True)
    looks = zip(rng.uniform(SMALL, LARGE, count), rng.uniform(FAINTEST, 1, count), strict=True)
    for (x, y), (radius, dark) in zip(places, looks, strict=True):
        cv2.circle(layer, (int(x) * 16, int(y) * 16), round(radius * side * 16), float(dark), cv2.FILLED, shift=4)
    return np.maximum(sketch, layer)


def add_grain(sketch: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """White noise of this standard deviation on all of the paper (H,W), cut off at 0 and 1."""
    noise = rng.standard_normal(sketch.shape, np.float32)
    return np.clip(sketch + np.float32(deviation) * noise, 0, 1)
