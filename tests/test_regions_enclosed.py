"""Enclosed regions: properties on random drawings, known figures, odd inputs."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components

from ragaf_exp.errors import UserError
from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.borders import crossings
from ragaf_exp.regions.enclosed import stroke_mask
from ragaf_exp.regions.merging import merge

EVERY = {"max_regions": 1024, "min_area": 0.0, "strokes": "none"}  # no merging


@st.composite
def drawings(draw) -> np.ndarray:
    """Random lines, circles and boxes, strokes 1 to 3 wide, at odd sizes, sometimes speckled."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    canvas = np.zeros(rng.integers(1, 44, 2), np.uint8)
    for _ in range(draw(st.integers(0, 8))):
        a, b = rng.integers(0, 44, (2, 2)).tolist()
        width = int(rng.integers(1, 4))
        kind = rng.integers(3)
        if kind == 0:
            cv2.line(canvas, a, b, 255, width)
        elif kind == 1:
            cv2.rectangle(canvas, a, b, 255, width)
        else:
            cv2.circle(canvas, a, int(rng.integers(1, 30)), 255, width)
    if draw(st.booleans()):
        canvas[rng.random(canvas.shape) < draw(st.sampled_from([0.02, 0.3, 0.6]))] = 255
    return canvas / np.float32(255)


def figure(*commands, size=64) -> np.ndarray:
    """A drawing from (cv2 function, arguments) pairs."""
    canvas = np.zeros((size, size), np.uint8)
    for command, *arguments in commands:
        command(canvas, *arguments)
    return canvas / np.float32(255)


def house() -> np.ndarray:
    """A house with roof, door and window, in a frame: 6 regions with the ground outside the frame."""
    return figure(
        (cv2.rectangle, (3, 3), (60, 60), 255, 1),
        (cv2.rectangle, (14, 30), (50, 56), 255, 1),
        (cv2.polylines, [np.array([(14, 30), (32, 10), (50, 30)])], True, 255, 1),
        (cv2.rectangle, (19, 42), (27, 56), 255, 1),
        (cv2.rectangle, (34, 36), (45, 45), 255, 1),
    )


@given(sketch=drawings(), gap=st.sampled_from([0.0, 0.03, 0.1]))
@settings(max_examples=80, deadline=None)
def test_areas_partition_the_open_pixels_and_are_connected(sketch, gap):
    regions = Enclosed(gap=gap, **EVERY)(sketch)
    stroke = stroke_mask(sketch)
    truth, n = components(~stroke)
    np.testing.assert_array_equal(regions.labels < 0, stroke)
    assert regions.count >= n and (gap > 0 or regions.count == n)
    assert set(np.unique(regions.labels[~stroke])) == set(range(regions.count))
    for index in range(regions.count):
        mask = regions.labels == index
        assert components(mask)[1] == 1, "connected"
        assert len(np.unique(truth[mask])) == 1, "never across a stroke"


@given(sketch=drawings(), most=st.integers(1, 20), least=st.sampled_from([0.0, 0.002, 0.05]))
@settings(max_examples=80, deadline=None)
def test_settings_hold_after_merging(sketch, most, least):
    regions = Enclosed(most, least)(sketch)
    areas = np.bincount(regions.labels.ravel() + 1, minlength=regions.count + 1)
    if stroke_mask(sketch).all():
        assert regions.count == 0 and regions.background == -1 and (regions.labels == -1).all()
        return
    assert areas[0] == 0 and regions.labels.dtype == np.int16
    assert 1 <= regions.count <= most and len(areas) == regions.count + 1
    assert (np.diff(areas[1:]) <= 0).all(), "ordered by area"
    assert 0 <= regions.background < regions.count
    figures = np.delete(areas[1:], regions.background)
    assert (figures >= least * sketch.size).all()


@given(sketch=drawings())
@settings(max_examples=40, deadline=None)
def test_stroke_option_changes_stroke_pixels_only(sketch):
    stroke = stroke_mask(sketch)
    with_strokes, without = Enclosed()(sketch), Enclosed(strokes="none")(sketch)
    assert with_strokes.count == without.count and (without.labels[stroke] == -1).all()
    pairs = np.stack([with_strokes.labels[~stroke], without.labels[~stroke]])
    assert len(np.unique(pairs, axis=1).T) == with_strokes.count, "the same regions, perhaps in another order"


@given(sketch=drawings(), axis=st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_flip_flips_the_areas(sketch, axis):
    finder = Enclosed(gap=0, **EVERY)
    one, two = finder(sketch).labels, np.flip(finder(np.flip(sketch, axis)).labels, axis)
    assert len(np.unique(np.stack([one.ravel(), two.ravel()]), axis=1).T) == len(np.unique(one))


@given(seed=st.integers(0, 10**6), least=st.integers(0, 40), most=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_merge_conserves_area_and_ends(seed, least, most):
    rng = np.random.default_rng(seed)
    labels = np.unique(rng.integers(0, 12, (9, 11)), return_inverse=True)[1].reshape(9, 11)
    count = int(labels.max()) + 1
    areas, borders = np.bincount(labels.ravel()), crossings(labels, count)[:count, :count]
    assert (borders == borders.T).all() and not borders.diagonal().any()
    background = int(rng.integers(count))
    group = merge(borders, areas, background, least, most)
    merged = np.bincount(group, weights=areas)
    assert merged.sum() == areas.sum() and len(merged) <= most and (merged > 0).all()
    assert (np.delete(merged, group[background]) >= least).all()


def test_small_region_joins_the_longest_border():
    labels = np.repeat(np.array([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1]]), 10, axis=0)
    labels[4:6, 4:6] = 2  # borders 0 on six sides, 1 on two
    group = merge(crossings(labels, 3)[:3, :3], np.bincount(labels.ravel()), 1, 10, 9)
    assert group[2] == group[0] != group[1]


def test_ring_in_ring():
    regions = Enclosed()(figure((cv2.circle, (32, 32), 24, 255, 1), (cv2.circle, (32, 32), 12, 255, 1)))
    assert regions.count == 3 and regions.background == 0
    assert [regions.labels[i, i] for i in (0, 20, 32)] == [0, 1, 2]
    assert regions.labels[32, 8] == 1 and regions.labels[32, 20] == 2, "an outline belongs to its figure"


def test_house_in_a_frame():
    regions = Enclosed()(house())
    places = {
        "outside": (0, 0),
        "frame": (8, 8),
        "wall": (52, 32),
        "roof": (22, 32),
        "door": (50, 23),
        "pane": (40, 40),
    }
    seen = {name: regions.labels[place] for name, place in places.items()}
    assert regions.count == 6 == len(set(seen.values())) and seen["outside"] == regions.background


def test_house_flips_with_the_sketch():
    for axis in (0, 1):
        flipped = Enclosed()(np.flip(house(), axis))
        np.testing.assert_array_equal(np.flip(flipped.labels, axis), Enclosed()(house()).labels)


def test_touching_squares_share_a_stroke():
    squares = figure((cv2.rectangle, (8, 20), (30, 42), 255, 1), (cv2.rectangle, (30, 20), (52, 42), 255, 1))
    assert Enclosed()(squares).count == 3


def cut_box(turn: int, width: int, gap: float) -> np.ndarray:
    """A square outline turned by some degrees, with a gap in the middle of one side."""
    box = cv2.boxPoints(((32, 32), (36, 36), turn))
    drawing = figure((cv2.polylines, [box.round().astype(np.int32)], True, 255, width))
    along = (box[1] - box[0]) / np.linalg.norm(box[1] - box[0])
    offset = np.stack(np.mgrid[:64, :64][::-1], axis=-1) - box[:2].mean(axis=0)
    at_side = abs(offset @ np.array([-along[1], along[0]])) < 5
    return drawing * ~(at_side & (abs(offset @ along) <= gap / 2))


@pytest.mark.parametrize("gap", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("turn", range(0, 180, 15))
def test_small_gaps_close_whichever_way_they_face(gap, width, turn):
    regions = Enclosed()(cut_box(turn, width, gap))
    assert regions.count == 2 and regions.labels[32, 32] != regions.background


@pytest.mark.parametrize("turn", range(0, 180, 15))
def test_wide_openings_stay_open(turn):
    assert Enclosed()(cut_box(turn, 1, 10)).count == 1
    assert Enclosed(gap=0)(cut_box(turn, 1, 3)).count == 1


def test_a_closed_gap_is_shared_by_both_sides():
    drawing = figure((cv2.rectangle, (4, 4), (59, 59), 255, 1), (cv2.line, (4, 30), (59, 30), 255, 4))
    drawing[20:40, 31:33] = 0
    labels = Enclosed()(drawing).labels
    rooms = labels[15, 32], labels[50, 32]
    column = labels[26:36, 32].tolist()
    assert rooms[0] != rooms[1] and column[0] == rooms[0] and column[-1] == rooms[1]
    assert 1 <= column[3:7].count(rooms[0]) <= 3, "the gap is split near its middle"


def test_necks_are_not_gaps():
    ring = figure((cv2.circle, (32, 32), 24, 255, 1), (cv2.circle, (32, 32), 20, 255, 1))
    ring[6:14, 32] = 1
    ring[10, 32] = 0  # a ring three thick, narrowed to one pixel
    assert Enclosed()(ring).count == 3
    bottle = figure((cv2.rectangle, (20, 30), (44, 58), 255, 1), (cv2.rectangle, (29, 10), (34, 30), 255, 1))
    bottle[30, 30:34] = 0
    assert Enclosed()(bottle).count == 2, "a neck as wide as itself belongs to the body"


def test_growing_back_leaves_no_open_pixel_to_the_wrong_side():
    drawing = figure((cv2.polylines, [np.array([(4, 60), (32, 6), (60, 60)])], True, 255, 1))
    labels = Enclosed(strokes="none")(drawing).labels
    truth, _ = components(drawing == 0)
    pairs = np.stack([labels, truth])[:, drawing == 0]
    assert len(np.unique(pairs, axis=1).T) == 2, "acute corners too"


def test_narrow_region_survives_closing():
    drawing = figure((cv2.rectangle, (10, 10), (50, 12), 255, 1))  # inside one pixel high
    regions = Enclosed()(drawing)
    assert regions.count == 2 and regions.labels[11, 30] == 1


def test_faint_strokes_count_and_paper_grain_does_not():
    ring = figure((cv2.circle, (32, 32), 20, 255, 2))
    assert Enclosed()(0.3 * ring).count == 2
    grain = np.random.default_rng(0).uniform(0, 0.1, (64, 64)).astype(np.float32)
    assert Enclosed()(grain).count == 1 and Enclosed()(np.maximum(grain, 0.6 * ring)).count == 2


def test_background_is_kept_however_small():
    full = figure((cv2.rectangle, (1, 1), (62, 62), 255, 1))
    regions = Enclosed(min_area=0.2)(full)
    assert regions.count == 2 and regions.background == 1 and regions.labels[0, 0] == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (64, 64), (40, 64)])
def test_blank_and_black(shape):
    blank, black = Enclosed()(np.zeros(shape, np.float32)), Enclosed()(np.ones(shape, np.float32))
    assert (blank.count, blank.background, blank.labels.max(), blank.labels.min()) == (1, 0, 0, 0)
    assert (black.count, black.background, black.labels.max(), black.labels.min()) == (0, -1, -1, -1)
    assert blank.labels.shape == black.labels.shape == shape


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("gap", [0, 0.03])
def test_thousands_of_specks(density, gap):
    noise = (np.random.default_rng(1).random((256, 300)) < density).astype(np.float32)
    regions = Enclosed(gap=gap)(noise)
    assert 1 <= regions.count <= 16 and (regions.labels >= 0).all()


@pytest.mark.parametrize(
    ("settings_", "key"),
    [
        ({"max_regions": 0}, "regions.max_regions"),
        ({"min_area": 1.5}, "regions.min_area"),
        ({"gap": -0.1}, "regions.gap"),
        ({"strokes": "all"}, "regions.strokes"),
    ],
)
def test_bad_settings_name_their_key(settings_, key):
    with pytest.raises(UserError, match=f"^{key}="):
        Enclosed(**settings_)
