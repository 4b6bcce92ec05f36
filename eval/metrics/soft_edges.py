"""Multi-scale SSIM of two maps in [0, 1] (Wang, Simoncelli, Bovik, "Multi-scale structural similarity", 2003).

It uses the paper's Gaussian window (11x11, standard deviation 1.5), constants and five weights. A map too small for five
scales gets as many as fit, with their weights normalised. Each map's own statistics are computed once, so that comparing
it with further maps is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from the finest scale to the coarsest
WINDOW, DEVIATION = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # of a data range of 1
_RIM = WINDOW // 2


class Level(NamedTuple):
    """A map at one scale."""

    values: np.ndarray  # (h,w) float32
    mean: np.ndarray  # (h-10,w-10) of the windows inside the map
    variance: np.ndarray


def pyramid(values: np.ndarray) -> list[Level]:
    """A map (H,W) in [0, 1] at up to five scales, each half the previous one. Raises ValueError if none fits."""
    if min(values.shape) < WINDOW:
        raise ValueError(f"a map {values.shape} is smaller than SSIM's {WINDOW}x{WINDOW} window")
    values, levels = np.ascontiguousarray(values, np.float32), []
    for _ in WEIGHTS:
        mean = _windowed(values)
        levels.append(Level(values, mean, _windowed(values * values) - mean * mean))
        height, width = (side // 2 for side in values.shape)
        if min(height, width) < WINDOW:
            break
        values = cv2.resize(values[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return levels


def ms_ssim(first: Sequence[Level], second: Sequence[Level]) -> float:
    """Similarity in [0, 1] of two maps' pyramids; 1 for equal maps. Anticorrelated scales count as 0.

    Flat areas of both maps agree, so sparse maps always have some similarity: compare the value with its chance level.
    """
    if [a.values.shape for a in first] != [b.values.shape for b in second]:
        raise ValueError(f"maps {first[0].values.shape} and {second[0].values.shape} differ in size")
    weights = np.array(WEIGHTS[: len(first)]) / sum(WEIGHTS[: len(first)])
    terms = [_similarity(a, b, with_mean=b is second[-1]) for a, b in zip(first, second, strict=True)]
    return float(np.prod(np.maximum(terms, 0.0) ** weights))


def _similarity(a: Level, b: Level, with_mean: bool) -> float:
    """Mean over the map of contrast and structure, times luminance at the coarsest scale (`with_mean`)."""
    product = a.mean * b.mean
    covariance = _windowed(a.values * b.values) - product
    similarity = (2 * covariance + C2) / (a.variance + b.variance + C2)
    if with_mean:
        similarity *= (2 * product + C1) / (a.mean * a.mean + b.mean * b.mean + C1)
    return float(similarity.mean(dtype=np.float64))


def _windowed(values: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(values, (WINDOW, WINDOW), DEVIATION)[_RIM:-_RIM, _RIM:-_RIM]
