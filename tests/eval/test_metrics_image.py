"""Pixel metrics and the bootstrap against known answers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.image import mse, psnr, ssim
from eval.statistics.bootstrap import figure, mean_interval
from ragaf_exp.data.images import read_image


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


@given(st.integers(0, 999), st.integers(7, 24), st.integers(7, 24), st.integers(0, 255))
def test_metrics_are_symmetric_and_keep_their_range(seed, height, width, noise):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    other = np.clip(image + rng.integers(-noise, noise + 1, image.shape), 0, 255).astype(np.uint8)
    for metric, low, high in ((mse, 0, 1), (psnr, 0, 58.93), (ssim, -1, 1)):
        value = metric(image, other)
        assert low <= value <= high + 1e-9 and value == pytest.approx(metric(other, image))
        turned = metric(image[::-1, :, ::-1].copy(), other[::-1, :, ::-1].copy())
        assert value == pytest.approx(turned), "nor up from down, nor red from blue"


def noisy(image: np.ndarray, deviation: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[np.ndarray]:
    files = sorted((shared_data / "coco_mini" / "val2017").glob("*.jpg"))[:4]
    return [cv2.resize(read_image(file), (128, 96), interpolation=cv2.INTER_AREA) for file in files]


@pytest.mark.parametrize("deviation", [5, 20, 60])
def test_torchmetrics_agrees(deviation):
    pairs = [(photo(seed), noisy(photo(seed), deviation, seed)) for seed in range(4)] + [(photo(0), photo(1))]
    check_agreement(pairs)


def test_torchmetrics_agrees_on_photos(real):
    check_agreement([(image, noisy(image, deviation)) for image in real for deviation in (5, 20, 60)])


def check_agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """PSNR agrees. SSIM agrees where the definitions do: over windows that lie wholly inside, and with torchmetrics'
    constant k2 set so that its covariance over 49 pixels equals skimage's over 48; without that, within 0.002.
    """
    peer = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    import torch

    for pair in pairs:
        first, second = (torch.from_numpy(p.astype(np.float64)).permute(2, 0, 1)[None] for p in pair)
        ratio = peer.peak_signal_noise_ratio(first, second, data_range=255.0)
        assert psnr(*pair) == pytest.approx(ratio.item(), abs=1e-3)
        for k2, near in ((0.03 * (48 / 49) ** 0.5, 1e-5), (0.03, 2e-3)):
            _, every = peer.structural_similarity_index_measure(
                first, second, data_range=255.0, gaussian_kernel=False, kernel_size=7, k2=k2, return_full_image=True
            )
            assert ssim(*pair) == pytest.approx(every[..., 3:-3, 3:-3].mean().item(), abs=near)


def test_growing_damage_worsens_every_figure(real):
    damages = {
        "blur": lambda image, step: cv2.GaussianBlur(image, (0, 0), step),
        "noise": lambda image, step: noisy(image, 10 * step),
        "colour shift": lambda image, step: np.clip(image + np.array([8, -8, 8]) * step, 0, 255).astype(np.uint8),
        "shift": lambda image, step: np.roll(image, step, axis=1),
    }
    for name, damage in damages.items():
        for metric, sign in ((mse, 1), (psnr, -1), (ssim, -1)):
            means = [sign * np.mean([metric(damage(image, step), image) for image in real]) for step in (1, 2, 4)]
            assert means[0] < means[1] < means[2], (name, metric.__name__, means)


def test_other_ranges_are_refused():
    image = photo()
    for metric in (mse, psnr, ssim):
        for wrong, says in (
            (image / 255.0, "reference is float64"),
            (image.astype(np.float32), "reference is float32"),
            (image > 127, "reference is bool"),
            (image.astype(np.int16), "reference is int16"),
            (image[..., 0], r"must be \(H, W, 3\)"),
            (image[:16], "differ in shape"),
        ):
            with pytest.raises(ValueError, match=says):
                metric(image, wrong)
            with pytest.raises(ValueError):
                metric(wrong, image)
    with pytest.raises(ValueError, match="window"):
        ssim(image[:5], image[:5])


def test_bootstrap_covers_the_true_mean():
    """The intervals of about 95 % of 200 samples hold their known mean."""
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
