"""Openings through which an outline leaks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.openings import MOST, openings

GAP = 0.03


def ring(size: int, half: float, turn: float = 0.0) -> np.ndarray:
    """A circle in the middle that is open by `half` degrees on each side of `turn`."""
    picture = np.zeros((size, size), np.uint8)
    middle, radius = (size // 2, size // 2), round(0.3 * size)
    cv2.ellipse(picture, middle, (radius, radius), turn, half, 360 - half, 255, max(2, size // 32))
    return picture.astype(np.float32) / 255


def leaks(sketch: np.ndarray, factor: float = 4.0):
    return openings(sketch, Enclosed(gap=GAP)(sketch), Enclosed(gap=factor * GAP)(sketch))


@pytest.mark.parametrize("turn", [0.0, 45.0, 90.0, 200.0])
@pytest.mark.parametrize("size", [64, 128])
def test_an_opening_is_listed_where_it_is(size, turn):
    (leak,) = leaks(ring(size, 14, turn))
    angle = np.deg2rad(turn)
    assert np.hypot(leak.at[0] - 0.5 - 0.3 * np.cos(angle), leak.at[1] - 0.5 - 0.3 * np.sin(angle)) < 0.06
    assert 0.02 < leak.width < 0.25


def test_closed_and_nearly_closed_outlines_do_not_leak():
    assert leaks(ring(128, 0)) == [] and leaks(ring(128, 3)) == []


def test_a_wide_opening_is_a_shape_and_no_leak():
    assert leaks(ring(128, 90)) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_openings_lie_in_the_picture_and_off_the_strokes(seed, count):
    rng, picture = np.random.default_rng(seed), np.zeros((48, 64), np.uint8)
    for _ in range(count):
        cv2.line(picture, *(tuple(map(int, point)) for point in rng.integers(0, 48, (2, 2))), 255, 1)
    sketch = picture.astype(np.float32) / 255
    listed = leaks(sketch)
    assert len(listed) <= MOST and [leak.width for leak in listed] == sorted(leak.width for leak in listed)
    for leak in listed:
        x, y = int(leak.at[0] * 64), int(leak.at[1] * 48)
        assert 0 <= x < 64 and 0 <= y < 48 and sketch[y, x] == 0
