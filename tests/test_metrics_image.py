"""Pixel metrics and the bootstrap against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from eval.bootstrap import figure, mean_interval
from eval.metrics.image import mse, psnr, ssim


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)


def test_identities():
    image = photo()
    assert mse(image, image) == 0.0
    assert ssim(image, image) == pytest.approx(1.0)
    assert psnr(image, image) == pytest.approx(10 * np.log10(12 * 255**2))


def test_known_errors():
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert mse(black, white) == 1.0
    assert psnr(black, white) == pytest.approx(0.0)
    assert psnr(black, black + 1) == pytest.approx(20 * np.log10(255))
    assert ssim(photo(0), photo(1)) < 0.1


def test_other_ranges_are_refused():
    image = photo()
    for wrong in (image / 255.0, image.astype(np.float32), image[..., 0], image[:16]):
        with pytest.raises(ValueError):
            mse(image, wrong)
    with pytest.raises(ValueError, match="window"):
        ssim(image[:5], image[:5])


def test_bootstrap_covers_the_true_mean():
    """Of 200 samples with a known mean, about 95 % have it in their interval."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        _, low, high = mean_interval(rng.random(60) < 0.8, seed=trial, resamples=500)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_clusters_widen_the_interval():
    """Ten equal copies of each value carry no more evidence than one: the interval is that of the values
    alone.
    """
    values = np.random.default_rng(0).random(50)
    copies, items = np.repeat(values, 10), np.repeat(np.arange(50), 10)
    alone, clustered = mean_interval(values), mean_interval(copies, items)
    naive = mean_interval(copies)
    assert clustered == pytest.approx(alone)
    assert naive[2] - naive[1] < 0.5 * (alone[2] - alone[1])


def test_interval_is_seeded():
    values = np.random.default_rng(1).random(40)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_certainty_is_never_claimed():
    """20 of 20: the exact binomial interval reaches down to 0.025^(1/20) = 0.832."""
    assert mean_interval(np.ones(20)) == pytest.approx((1.0, 0.832, 1.0), abs=1e-3)
    assert mean_interval(np.zeros(20)) == pytest.approx((0.0, 0.0, 0.168), abs=1e-3)
    assert mean_interval(np.ones(20), ["a", "b"] * 10)[1] == pytest.approx(0.025**0.5)


def test_figure():
    entry = figure([1.0, 0.0, 1.0, 1.0], higher_is_better=True, clusters=["a", "a", "b", "c"], weights="ema")
    assert entry["value"] == 0.75 and entry["n"] == 4 and entry["items"] == 3 and entry["weights"] == "ema"
    assert entry["ci95"][0] <= 0.75 <= entry["ci95"][1] and entry["higher_is_better"] is True
    for bad in ([], [np.nan, 1.0]):
        with pytest.raises(ValueError):
            figure(bad, higher_is_better=True)
