"""Metrics of edits and the simple methods they are compared with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.metrics.colour import angular_error, delta_e_2000, mse_255
from eval.metrics.holes import kept_unchanged, l1_hole, psnr_hole, ssim_hole
from eval.metrics.image import psnr, ssim
from eval.rivals.holes import FILLS, naive_paste
from eval.rivals.white_balance import BALANCES
from ragaf_exp.data.light import Light, planckian, sample_light, to_linear, to_srgb
from ragaf_exp.data.masks.generate import Masks
from ragaf_exp.data.sources.scenes import Scenes


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [item.image for item in Scenes(test=12).split("test")]


def test_a_full_hole_gives_the_whole_images_figures(scenes):
    image, truth, full = scenes[0], scenes[1], np.ones((64, 64), bool)
    assert psnr_hole(image, truth, full) == pytest.approx(psnr(image, truth))
    assert l1_hole(image, truth, full) == pytest.approx(np.abs(image / 255.0 - truth / 255.0).mean())
    inner = np.pad(np.ones((58, 58), bool), 3)  # where windows lie wholly inside
    assert ssim_hole(image, truth, inner) == pytest.approx(ssim(image, truth))
    assert psnr_hole(truth, truth, full) == pytest.approx(58.92, abs=0.01)


def test_only_the_hole_counts(scenes):
    truth, mask = scenes[0], Masks()("a", 64, 64)
    outside = np.where(mask[..., None], truth, 255 - truth).astype(np.uint8)
    assert psnr_hole(outside, truth, mask) == pytest.approx(58.92, abs=0.01) and l1_hole(outside, truth, mask) == 0
    assert kept_unchanged(outside, truth, mask) == 0
    inside = np.where(mask[..., None], 255 - truth, truth).astype(np.uint8)
    assert kept_unchanged(inside, truth, mask) == 1 and psnr_hole(inside, truth, mask) < 15


def test_an_empty_hole_has_no_figure(scenes):
    with pytest.raises(ValueError, match="empty"):
        psnr_hole(scenes[0], scenes[0], np.zeros((64, 64), bool))


@pytest.mark.parametrize("name", sorted(FILLS))
def test_rivals_fill_the_hole_alone_and_better_than_grey(name, scenes):
    masks, gains = Masks("strokes", "medium"), []
    for i, truth in enumerate(scenes):
        mask = masks(str(i), 64, 64)
        given = np.where(mask[..., None], 0, truth).astype(np.uint8)
        filled = FILLS[name](given, mask)
        assert (filled[~mask] == truth[~mask]).all()
        gains.append(psnr_hole(filled, truth, mask) - psnr_hole(np.full_like(truth, 128), truth, mask))
    assert np.mean(gains) > 3


def test_pasting_puts_the_object_into_the_hole(scenes):
    mask = np.zeros((64, 64), bool)
    mask[20:40, 10:50] = True
    thing = np.full((30, 30, 3), (215, 30, 35), np.uint8)
    alpha = np.zeros((30, 30), np.float32)
    alpha[5:25, 5:25] = 1
    pasted = naive_paste(scenes[0], mask, thing, alpha)
    assert (pasted[~mask] == scenes[0][~mask]).all()
    assert (pasted[20:40, 20:40] == (215, 30, 35)).all(), "a square of the hole's height, in its middle"
    assert (naive_paste(scenes[0], mask, thing, 0 * alpha) == scenes[0]).all(), "nothing to paste"


# --- colour


def test_colour_metrics_are_zero_for_equal_images_and_known_for_others(scenes):
    image = scenes[0]
    assert delta_e_2000(image, image) == mse_255(image, image) == 0 and angular_error(image, image) < 1e-4
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert delta_e_2000(black, white) == pytest.approx(100, abs=0.1) and mse_255(black, white) == 65025
    red, green = (np.array([[colour]], np.uint8) for colour in ((255, 0, 0), (0, 255, 0)))
    assert angular_error(red, green) == pytest.approx(90) and angular_error(image, image // 2) < 1


def test_planckian_lights_are_red_when_low_and_blue_when_high():
    low, middle, high = (planckian(kelvin) for kelvin in (2500, 6500, 10000))
    assert low[0] > 2 > 0.3 > low[2] and np.allclose(middle, 1, atol=0.06) and high[0] < 0.9 < 1.15 < high[2]
    # CIE x, y of 2856 K (illuminant A) are 0.4476, 0.4074
    xyz = np.linalg.inv(np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560],
                                  [0.0556434, -0.2040259, 1.0572252]])) @ planckian(2856)  # fmt: skip
    assert xyz[:2] / xyz.sum() == pytest.approx((0.4476, 0.4074), abs=0.004)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_light_keeps_its_ranges(seed):
    light = sample_light(np.random.default_rng(seed))
    assert 2500 <= light.kelvin <= 10000 and abs(light.exposure) <= 0.3 and 0.9 < light.gamma < 1.11
    assert light.gains().mean() == pytest.approx(1) and np.isfinite(light.parameters()).all()


def test_neutral_light_changes_nothing_and_sRGB_is_inverted(scenes):
    assert np.abs(Light(6500.0).render(scenes[0]).astype(int) - scenes[0]).max() == 0
    assert (to_srgb(to_linear(np.arange(256, dtype=np.uint8))) == np.arange(256)).all()


@pytest.mark.parametrize("name", sorted(BALANCES))
def test_balances_remove_a_cast_from_a_grey_ramp(name):
    ramp = np.repeat(np.linspace(30, 200, 64).astype(np.uint8)[None, :, None], 16, 0).repeat(3, 2)
    cast = Light(4500.0).render(ramp)
    balanced = BALANCES[name](cast)
    chroma = [float(np.ptp(x.astype(float), axis=-1).mean()) for x in (cast, balanced)]
    assert chroma[0] > 15 and chroma[1] < 2
