"""Enclosed regions: properties on random drawings, known figures, turned sketches, bad settings."""

import cv2
import numpy as np
import pytest
from drawings import TURNS, drawings, figure, house, house_places, rings
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Regions
from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.enclosed import stroke_mask
from ragaf_exp.regions.gaps import CLOSINGS

EVERY = {"max_regions": 1024, "min_area": 0.0, "strokes": "none"}  # no merging
GAPS = st.sampled_from([0.0, 0.03, 0.1])
CLOSING = st.sampled_from(sorted(CLOSINGS))


def same_cells(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two label maps part the picture alike, whatever the numbers."""
    pairs = len(np.unique(np.stack([one.ravel(), two.ravel()]), axis=1).T)
    return pairs == len(np.unique(one)) == len(np.unique(two))


def open_areas(sketch: np.ndarray) -> np.ndarray:
    """Pixels of each connected area between strokes."""
    return np.bincount(components(~stroke_mask(sketch))[0].ravel())[1:]


@given(sketch=drawings(), gap=GAPS, closing=CLOSING)
@settings(max_examples=120, deadline=None)
def test_areas_partition_the_open_pixels_and_are_connected(sketch, gap, closing):
    regions = Enclosed(gap=gap, closing=closing, **EVERY)(sketch)
    stroke = stroke_mask(sketch)
    truth, n = components(~stroke)
    np.testing.assert_array_equal(regions.labels < 0, stroke)
    assert regions.count >= n and (gap > 0 or regions.count == n)
    assert set(np.unique(regions.labels[~stroke])) == set(range(regions.count))
    for index in range(regions.count):
        mask = regions.labels == index
        assert components(mask)[1] == 1, "connected"
        assert len(np.unique(truth[mask])) == 1, "never across a stroke"


@given(sketch=drawings(), most=st.integers(1, 20), least=st.sampled_from([0.0, 0.002, 0.05]), closing=CLOSING)
@settings(max_examples=120, deadline=None)
def test_settings_hold_after_merging(sketch, most, least, closing):
    regions = Enclosed(most, least, closing=closing)(sketch)
    areas = np.bincount(regions.labels.ravel() + 1, minlength=regions.count + 1)
    if stroke_mask(sketch).all():
        assert regions.count == 0 and regions.background == -1 and (regions.labels == -1).all()
        assert regions.parent.shape == regions.depth.shape == (0,)
        return
    assert areas[0] == 0 and regions.labels.dtype == np.int16, "merging conserves area: every pixel has a region"
    assert 1 <= regions.count <= most and len(areas) == regions.count + 1
    assert (np.diff(areas[1:]) <= 0).all(), "ordered by area"
    assert 0 <= regions.background < regions.count
    figures = np.delete(areas[1:], regions.background)
    assert (figures >= least * sketch.size).all()
    for index in range(regions.count):
        assert components(regions.labels == index)[1] == 1, "connected, with its strokes"


@given(sketch=drawings(), most=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_merged_regions_are_unions_of_areas(sketch, most):
    fine = Enclosed(gap=0, **EVERY)(sketch)
    coarse = Enclosed(most, 0.01, gap=0, strokes="none")(sketch)
    np.testing.assert_array_equal(fine.labels < 0, coarse.labels < 0)
    for index in range(fine.count):
        assert len(np.unique(coarse.labels[fine.labels == index])) == 1


@given(sketch=drawings(), closing=CLOSING)
@settings(max_examples=40, deadline=None)
def test_stroke_option_changes_stroke_pixels_only(sketch, closing):
    stroke = stroke_mask(sketch)
    with_strokes, without = Enclosed(closing=closing)(sketch), Enclosed(closing=closing, strokes="none")(sketch)
    assert with_strokes.count == without.count and (without.labels[stroke] == -1).all()
    pairs = np.stack([with_strokes.labels[~stroke], without.labels[~stroke]])
    assert len(np.unique(pairs, axis=1).T) == with_strokes.count, "the same regions, perhaps in another order"


@given(sketch=drawings())
@settings(max_examples=40, deadline=None)
def test_the_background_has_most_of_the_rim(sketch):
    regions = Enclosed(max_regions=1024, min_area=0.0)(sketch)
    if regions.count:
        labels = regions.labels
        rim = np.bincount(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        assert rim[regions.background] == rim.max()


@given(sketch=drawings(), turn=st.sampled_from(sorted(TURNS)))
@settings(max_examples=60, deadline=None)
def test_a_turned_sketch_has_the_turned_areas(sketch, turn):
    there, back = TURNS[turn]
    finder = Enclosed(gap=0, **EVERY)
    assert same_cells(finder(sketch).labels, back(finder(there(sketch)).labels))


@given(sketch=drawings(speckled=False), turn=st.sampled_from(sorted(TURNS)), most=st.integers(1, 16))
@settings(max_examples=80, deadline=None)
def test_a_turned_sketch_has_the_turned_regions(sketch, turn, most):
    sizes = open_areas(sketch)
    assume(len(np.unique(sizes)) == len(sizes))  # of areas of one size, either may come first
    there, back = TURNS[turn]
    one, two = (Enclosed(most, gap=0)(s) for s in (sketch, there(sketch)))
    np.testing.assert_array_equal(one.labels, back(two.labels))
    assert one.background == two.background and one.parent.tolist() == two.parent.tolist()
    assert one.depth.tolist() == two.depth.tolist()


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("closing", CLOSINGS)
def test_house_turns_with_the_sketch(turn, closing):
    there, back = TURNS[turn]
    one, two = (Enclosed(closing=closing)(s) for s in (house(), there(house())))
    np.testing.assert_array_equal(one.labels, back(two.labels))
    assert one.parent.tolist() == two.parent.tolist()


@pytest.mark.parametrize("closing", CLOSINGS)
def test_ring_in_ring(closing):
    regions = Enclosed(closing=closing)(rings(24, 12))
    assert regions.count == 3 and regions.background == 0
    assert [regions.labels[i, i] for i in (0, 20, 32)] == [0, 1, 2]
    assert regions.labels[32, 8] == 1 and regions.labels[32, 20] == 2, "an outline belongs to its figure"


@pytest.mark.parametrize("closing", CLOSINGS)
def test_house_in_a_frame(closing):
    regions = Enclosed(closing=closing)(house())
    recorded = house_places(regions)
    assert regions.count == 6 == len(set(recorded.values())) and recorded["outside"] == regions.background


def test_touching_squares_share_a_stroke():
    squares = figure((cv2.rectangle, (8, 20), (30, 42), 255, 1), (cv2.rectangle, (30, 20), (52, 42), 255, 1))
    regions = Enclosed()(squares)
    assert regions.count == 3 and len({int(regions.labels[30, x]) for x in (2, 18, 42)}) == 3
    assert regions.labels[30, 30] != regions.background


def test_window_panes_are_four():
    bars = [((32, 8), (32, 56)), ((8, 32), (56, 32))]
    window = figure((cv2.rectangle, (8, 8), (56, 56), 255, 1), *((cv2.line, a, b, 255, 1) for a, b in bars))
    regions = Enclosed()(window)
    panes = {int(regions.labels[y, x]) for y in (20, 44) for x in (20, 44)}
    assert regions.count == 5 and len(panes) == 4 and regions.background not in panes


def test_faint_strokes_count_and_paper_grain_does_not():
    ring = figure((cv2.circle, (32, 32), 20, 255, 2))
    assert Enclosed()(0.3 * ring).count == 2
    grain = np.random.default_rng(0).uniform(0, 0.1, (64, 64)).astype(np.float32)
    assert Enclosed()(grain).count == 1 and Enclosed()(np.maximum(grain, 0.6 * ring)).count == 2


def test_background_is_kept_however_small():
    full = figure((cv2.rectangle, (1, 1), (62, 62), 255, 1))
    regions = Enclosed(min_area=0.2)(full)
    assert regions.count == 2 and regions.background == 1 and regions.labels[0, 0] == 1


def test_at_most_so_many_regions_the_largest():
    boxes = figure(*((cv2.rectangle, (2 + 12 * i, 10), (4 + 12 * i + i, 30), 255, 1) for i in range(5)))
    areas = [int((Enclosed(strokes="none")(boxes).labels == i).sum()) for i in range(6)]
    for most in range(1, 6):
        regions = Enclosed(most, strokes="none")(boxes)
        remaining = [int((regions.labels == i).sum()) for i in range(regions.count)]
        assert regions.count == most and remaining[1:] == areas[1:most] and sum(remaining) == sum(areas)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("max_regions", (0, 1025)),
        ("min_area", (1.5, -0.1, float("nan"))),
        ("gap", (-0.1, 0.6, float("nan"))),
        ("closing", ("open", "")),
        ("strokes", ("all", "")),
        ("levels", (-1, 33)),
    ],
)
def test_bad_settings_name_their_key(key, values):
    for value in values:
        with pytest.raises(UserError, match=f"^regions.{key}=.*take ") as caught:
            Enclosed(**{key: value})
        assert "\n" not in str(caught.value)


def test_the_result_is_typed():
    regions = Enclosed()(house())
    assert isinstance(regions, Regions) and regions.labels.dtype == regions.parent.dtype == np.int16
    assert regions.depth.dtype == np.int16 and regions.parent.shape == regions.depth.shape == (regions.count,)
