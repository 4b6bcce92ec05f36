"""Augmentations of drawings: each does what it says and no more, as a function of its generator."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass
from scipy.ndimage import label as components

from ragaf_exp.data.sources.scenes import Scenes
from ragaf_exp.regions.enclosed import Enclosed
from ragaf_exp.sketch.augment import Drawing, Unchanged
from ragaf_exp.sketch.augment.marks import add_grain, add_specks
from ragaf_exp.sketch.augment.strokes import change_width, drop, erase_pieces
from ragaf_exp.sketch.augment.warp import move

MOST = {"affine": 0.5, "jitter": 0.1, "width": 0.1, "gaps": 1.0, "dropout": 1.0, "specks": 0.1, "grain": 0.5}
OFF = dict.fromkeys(MOST, 0.0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ring(size: int = 64, width: float = 2.0, radius: float = 0.3) -> np.ndarray:
    """A circle with a soft rim, its line so many pixels wide."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.clip(width / 2 + 0.5 - abs(np.hypot(x, y) - radius * size), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def drawings() -> list[np.ndarray]:
    items = Scenes(train=40).split("train")
    return [items[i].drawing for i in range(40)]


# --- all of it


@given(
    seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), soft=st.booleans(),
    strengths=st.fixed_dictionaries({name: st.sampled_from([0.0, most / 10, most]) for name, most in MOST.items()}),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_any_drawing_stays_one(seed, height, width, soft, strengths):
    values = generator(seed).random((height, width), np.float32)
    sketch = values if soft else (values > 0.8).astype(np.float32)
    before, augment = sketch.copy(), Drawing(**strengths)
    out = augment(sketch, generator(seed))
    assert out.dtype == np.float32 and out.shape == sketch.shape and out.flags.c_contiguous
    assert out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(sketch, before)
    np.testing.assert_array_equal(augment(sketch, generator(seed)), out)
    assert not np.shares_memory(out, sketch)
    if not any(strengths.values()):
        np.testing.assert_array_equal(out, sketch)
    assert augment.active == any(strengths.values())


def test_none_costs_nothing():
    sketch = ring()
    assert Unchanged()(sketch, generator()) is sketch and not Unchanged().active


def test_each_strength_changes_drawings_and_the_more_the_more(drawings):
    for name, most in MOST.items():
        weak, strong = (Drawing(**OFF | {name: share * most}) for share in (0.1, 1.0))
        change = [np.mean([abs(a(d, generator(i)) - d).mean() for i, d in enumerate(drawings)]) for a in (weak, strong)]
        assert 0 < change[0] < change[1], name


def test_another_seed_is_another_drawing(drawings):
    augment = Drawing()
    outs = [augment(drawings[0], generator(seed)).tobytes() for seed in range(20)]
    assert len(set(outs)) == 20


def test_the_defaults_leave_most_regions_as_they_are(drawings):
    """Objects are still enclosed: training sees hands that differ, not other scenes."""
    regions, augment = Enclosed(), Drawing()
    counts = [(regions(d).count, regions(augment(d, generator(i))).count) for i, d in enumerate(drawings)]
    assert np.mean([a == b for a, b in counts]) > 0.5
    assert abs(np.mean([b - a for a, b in counts])) < 0.7


def test_it_takes_less_than_a_millisecond(drawings):
    augment, times = Drawing(), []
    for i in range(200):
        began = time.process_time_ns()
        augment(drawings[i % 40], generator(i))
        times.append(time.process_time_ns() - began)
    assert np.median(times) < 1e6, "a median, since other work runs here"


# --- where strokes lie


def test_nothing_moves_without_strength():
    np.testing.assert_allclose(move(ring(), 0.0, 0.0, generator()), ring(), atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_jitter_moves_nothing_farther_than_it_says(seed):
    points = np.zeros((100, 100), np.float32)
    points[10::20, 10::20] = 1
    moved = move(points, 0.0, 0.05, generator(seed))
    there, here = np.argwhere(points > 0), np.argwhere(moved > 0.2)
    away = abs(there[:, None] - here).max(2)  # along the axis where it is farther
    assert away.min(1).max() <= 6 and away.min(0).max() <= 6, "a pixel of interpolation included"


@pytest.mark.parametrize("seed", range(8))
def test_affine_maps_are_small_and_whole(seed):
    moved = move(ring(), 0.05, 0.0, generator(seed))
    assert np.hypot(*np.subtract(center_of_mass(moved), 31.5)) < 0.05 * 64 * np.sqrt(2) + 0.5
    assert moved.sum() == pytest.approx(ring().sum(), rel=0.15)
    assert np.abs(moved - ring()).max() > 0.1


@pytest.mark.parametrize("width", [1.0, 1.5, 3.0])
def test_moving_opens_no_outline(width):
    """A line of one pixel that comes to lie between two is not torn."""
    for seed in range(30):
        moved = move(ring(width=width), 0.1, 0.02, generator(seed))
        assert components(moved <= 0.4)[1] == 2, seed


def test_what_comes_from_outside_is_paper():
    full = np.ones((40, 40), np.float32)
    assert min(move(full, 0.3, 0.0, generator(seed)).min() for seed in range(10)) == 0


# --- what strokes are like


@given(change=st.floats(-8, 8), width=st.floats(1, 5))
@settings(max_examples=60, deadline=None)
def test_width_grows_and_shrinks_and_breaks_nothing(change, width):
    before = ring(width=width)
    after = change_width(before, change)
    assert (after >= before - 1e-6).all() if change >= 0 else (after <= before + 1e-6).all()
    assert components(after <= 0.5)[1] == 2, "the ring stays closed"
    if change > 0:
        assert after.sum() - before.sum() == pytest.approx(change * 2 * np.pi * 0.3 * 64, rel=0.35, abs=15)


def test_thinning_leaves_lines_one_pixel_wide():
    thin = change_width(ring(width=4), -6.0)
    assert 0 < (thin > 0.5).sum() < 2 * np.pi * 0.3 * 64 * 1.2


def test_gaps_take_their_share_in_short_pieces():
    before = ring(width=2)
    gone, pieces = [], []
    for seed in range(60):
        after = erase_pieces(before, 0.2, generator(seed))
        assert ((after == before) | (after == 0)).all()
        gone.append(1 - after.sum() / before.sum())
        pieces.append(components((before > 0) & (after == 0), np.ones((3, 3)))[1])
    assert 0.1 < np.mean(gone) < 0.25 and np.mean(pieces) > 3
    np.testing.assert_array_equal(erase_pieces(before, 0.0, generator()), before)


def test_dropout_takes_whole_pieces_but_the_largest():
    sheet = np.zeros((128, 128), np.float32)
    for i in range(4):
        for j in range(4):
            sheet[32 * i : 32 * i + 32, 32 * j : 32 * j + 32] = ring(32, radius=0.4 if (i, j) == (2, 1) else 0.25)
    recorded = []
    for seed in range(60):
        after = drop(sheet, 0.25, generator(seed))
        cells = [(32 * i, 32 * j) for i in range(4) for j in range(4)]
        remaining = [after[y : y + 32, x : x + 32].any() for y, x in cells]
        for (y, x), stays in zip(cells, remaining, strict=True):
            wanted = sheet[y : y + 32, x : x + 32] if stays else 0
            np.testing.assert_array_equal(after[y : y + 32, x : x + 32], wanted, "all of a piece, or nothing of it")
        assert remaining[9], "the largest stays"
        recorded.append(1 - np.mean(remaining[:9] + remaining[10:]))
    assert np.mean(recorded) == pytest.approx(0.25, abs=0.05)
    assert components(drop(sheet, 1.0, generator()) > 0.1)[1] == 1


# --- what else is on the sheet


def test_specks_cover_their_share_and_spare_strokes():
    shares = []
    for seed in range(40):
        after = add_specks(ring(), 0.02, generator(seed))
        assert (after >= ring()).all()
        shares.append(((after > 0) & (ring() == 0)).sum() / (ring() == 0).sum())
    assert 0.01 < np.mean(shares) < 0.05
    np.testing.assert_array_equal(add_specks(ring(), 0.0, generator()), ring())


def test_grain_has_its_deviation():
    grey = np.full((200, 200), 0.5, np.float32)
    assert (add_grain(grey, 0.05, generator()) - grey).std() == pytest.approx(0.05, rel=0.05)
    assert (add_grain(np.zeros((200, 200), np.float32), 0.05, generator()) == 0).mean() == pytest.approx(0.5, abs=0.02)
