"""The shrinking of photos: close to the mean over areas, exact at their own size, and part of the names of caches."""

from __future__ import annotations

import cv2
import data_layouts
import numpy as np
import pytest

from ragaf_exp.data.fit import PHOTO_FILTER, fit_image, fit_photo, resampling_of
from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.data.sources.sketchy import Sketchy
from ragaf_exp.data.sources.tuberlin import TuBerlin
from ragaf_exp.training.encoder_cache.fill import pixels_of


def photo(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("size", [64, 100, (48, 80)])
@pytest.mark.parametrize("shape", [(150, 200), (201, 133)])
def test_a_photo_shrinks_nearly_to_the_mean_over_areas(fit, size, shape):
    image = photo(*shape)
    shrunk, areas = fit_photo(image, size, fit), fit_image(image, size, fit)
    assert shrunk.shape == areas.shape and shrunk.dtype == np.uint8 and shrunk.flags.c_contiguous and shrunk.flags.writeable
    difference = np.abs(shrunk.astype(int) - areas)
    assert difference.mean() < 2 and difference.max() < 25 and np.abs((shrunk - areas.astype(float)).mean()) < 0.3


def test_what_does_not_shrink_is_as_ever():
    image = photo(40, 60)
    assert np.array_equal(fit_photo(image, 64), fit_image(image, 64))
    assert np.array_equal(fit_photo(image[:, :40], 40), image[:, :40])


def test_a_read_only_picture_is_not_written():
    image = photo(100, 100)
    expected = fit_photo(image, 32)
    image.flags.writeable = False
    assert np.array_equal(fit_photo(image, 32), expected)


def test_caches_of_photos_are_named_by_the_filter(tmp_path):
    data_layouts.sketchy(tmp_path / "sketchy")
    data_layouts.tuberlin(tmp_path / "tuberlin")
    photos, drawings = Sketchy(str(tmp_path / "sketchy")), TuBerlin(str(tmp_path / "tuberlin"))
    assert resampling_of(photos) == PHOTO_FILTER and pixels_of(photos) == f"/{PHOTO_FILTER}"
    assert resampling_of(drawings) == pixels_of(drawings) == pixels_of(Scenes()) == ""
