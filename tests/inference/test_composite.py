"""Edits keep every pixel that they must: crops around holes, pasting at full resolution, feather, alpha, profile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from ragaf_exp.core.errors import UserError
from ragaf_exp.inference.composite import check_sizes, crop_around, paste, read_picture


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


holes = st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=80, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), holes, st.booleans(), st.sampled_from([0.0, 2.5]))
def test_pixels_outside_the_hole_keep_their_bytes(height, width, hole, whole, feather):
    top, left, rows, columns = hole
    mask = np.zeros((height, width), bool)
    mask[top : top + rows, left : left + columns] = True
    image = noise(height, width)
    crop = crop_around(mask, 32, whole=whole)
    result = crop.paste(image, 255 - crop.image(image), mask, feather)
    assert result.shape == image.shape and (result[~mask] == image[~mask]).all()
    assert crop.image(image).shape == (32, 32, 3) and crop.hole(mask).any() == mask.any()


def test_the_crop_holds_the_hole_with_context_at_the_images_own_resolution():
    mask = np.zeros((400, 600), bool)
    mask[100:140, 500:560] = True
    crop = crop_around(mask, 64, context=0.5)
    assert (crop.side, crop.size) == (120, 64)
    assert crop.cut(mask).sum() == mask.sum() and crop.left + crop.side <= 600
    assert crop_around(np.zeros((40, 60), bool), 32).side == 60, "no hole: the whole image"


def test_a_window_of_the_models_size_is_not_resampled():
    mask = np.zeros((100, 100), bool)
    mask[40:50, 40:50] = True
    image, crop = noise(100, 100), crop_around(mask, 64)
    assert crop.side == 64
    assert (crop.paste(image, crop.image(image), mask) == image).all()


def test_an_empty_mask_leaves_the_image_and_a_full_one_takes_the_result():
    image, other = noise(20, 30), noise(20, 30, 1)
    assert (paste(image, other, np.zeros((20, 30), bool)) == image).all()
    assert (paste(image, other, np.ones((20, 30), bool), feather=3) == other).all()


def test_a_feather_softens_the_seam_and_never_shows_what_was_covered():
    image = np.full((60, 60, 3), 100, np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[15:45, 15:45] = True
    image[mask] = 255  # what has to go
    result = np.full((60, 60, 3), 140, np.uint8)
    hard, soft = paste(image, result, mask), paste(image, result, mask, feather=6)
    step = [int(x[15, 30, 0]) - 100 for x in (hard, soft)]
    assert step[0] == 40 and 0 < step[1] < 12
    assert soft[30, 30, 0] == 140 and soft.max() <= 140


def test_alpha_and_profile_survive(tmp_path):
    alpha = noise(20, 30)[..., 0]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = noise(20, 30, 2)
    Image.fromarray(np.dstack([image, alpha])).save(tmp_path / "a.png", icc_profile=profile)
    picture = read_picture(tmp_path / "a.png")
    mask = np.zeros((20, 30), bool)
    mask[5:9, 5:9] = True
    picture.with_rgb(paste(picture.rgb, 255 - picture.rgb, mask)).save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as file:
        after = np.asarray(file)
        assert file.mode == "RGBA" and file.info["icc_profile"] == profile
    assert (after[..., 3] == alpha).all() and (after[..., :3][~mask] == image[~mask]).all()
    assert (after[..., :3][mask] == 255 - image[mask]).all()


def test_a_mask_of_another_size_is_one_line():
    with pytest.raises(UserError, match="mask.png: is 30x20, and a.png is 30x21"):
        check_sizes(noise(21, 30), np.zeros((20, 30), bool), "a.png", "mask.png")
