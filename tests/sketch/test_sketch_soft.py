"""Soft edges: DoG and Scharr compute their equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d, sobel

from ragaf_exp.sketch import DoG, Scharr


def step(height: float, size: int = 64) -> np.ndarray:
    """A straight step, its bright side on the right, of this height."""
    return np.where(np.arange(size) < size // 2, 0.1, 0.1 + height) * np.ones((size, 1))


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("k", [1.3, 1.6, 4.0])
def test_dog_is_as_dark_as_the_step_is_high(sigma, k):
    for height in (0.1, 0.2, 0.4):
        sketch = DoG(sigma=sigma, k=k, full=0.4)(step(height), None)
        assert sketch.max() == pytest.approx(height / 0.4, rel=0.06)
        assert sketch[:, 32:].max() < 1e-3, "drawn on the dark side alone"
    assert DoG(sigma=sigma, k=k, full=0.4)(step(0.6), None).max() == 1


def test_dog_equation():
    grey = step(0.2)[:1]
    fine, coarse = (gaussian_filter1d(grey, s, mode="reflect", truncate=6) for s in (1.5, 3.0))
    x = 2 * math.sqrt(2 * math.log(2) / 3)
    peak = 0.5 * (math.erf(x / math.sqrt(2)) - math.erf(x / 2 / math.sqrt(2)))
    wanted = np.clip((coarse - fine) / (0.5 * peak), 0, 1)
    np.testing.assert_allclose(DoG(sigma=1.5, k=2.0, full=0.5)(grey, None), wanted, atol=0.01)


@pytest.mark.parametrize("height", [0.05, 0.2, 0.4])
def test_scharr_is_as_dark_as_the_step_is_high(height):
    for image in (step(height), step(height).T):
        sketch = Scharr(sigma=0, full=0.5)(image, None)
        assert sketch.max() == pytest.approx(height / 0.5, rel=1e-4)
        assert (sketch > 0).sum() == 2 * 64, "on both pixels that meet at the edge"
    assert Scharr(sigma=0, full=0.3)(step(0.4), None).max() == 1


def test_scharr_weighs_all_directions_alike():
    """A ramp of the same slope in any direction has the same gradient; Sobel's is off by more."""
    y, x = np.mgrid[-40:41, -40:41].astype(np.float64)
    result, sobels = [], []
    for angle in np.radians(np.arange(0, 90, 5)):
        wave = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 2)
        result.append(Scharr(sigma=0, full=1)(wave, None)[20:60, 20:60].max())
        sobels.append(np.hypot(sobel(wave, 0), sobel(wave, 1))[20:60, 20:60].max() / 4)
    assert np.ptp(result) / np.mean(result) < 0.01 < np.ptp(sobels) / np.mean(sobels)
