"""Gaps in outlines: which are closed, at what size and angle, and which openings are none."""

import cv2
import numpy as np
import pytest
from drawings import TURNS, figure, rings
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components

from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.gaps import CLOSINGS

BOTH = pytest.mark.parametrize("closing", sorted(CLOSINGS))
CLOSED = {64: (1, 2, 3), 128: (1, 3, 5), 256: (1, 4, 7)}  # widths of gaps at the default gap=0.03, by the picture's size
OPEN = {64: (7, 10), 128: (12, 20), 256: (20, 40)}


def cut_box(turn: int, width: int, gap: float, size: int = 64) -> np.ndarray:
    """A square outline turned by some degrees, with a gap in the middle of one side."""
    box = cv2.boxPoints(((size / 2, size / 2), (0.56 * size, 0.56 * size), turn))
    drawing = figure((cv2.polylines, [box.round().astype(np.int32)], True, 255, width), size=size)
    along = (box[1] - box[0]) / np.linalg.norm(box[1] - box[0])
    offset = np.stack(np.mgrid[:size, :size][::-1], axis=-1) - box[:2].mean(axis=0)
    at_side = abs(offset @ np.array([-along[1], along[0]])) < 5
    return drawing * ~(at_side & (abs(offset @ along) <= gap / 2))


def middle_is_apart(drawing: np.ndarray, **options) -> bool:
    """Whether the middle of the picture is in another region than its corner, which is background."""
    regions = Enclosed(**options)(drawing)
    assert regions.labels[0, 0] == regions.background
    return regions.labels[len(drawing) // 2, len(drawing) // 2] != regions.background


@BOTH
@pytest.mark.parametrize("size", CLOSED)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_small_gaps_close_whichever_way_they_face(closing, size, width):
    for turn in range(0, 180, 15):
        for gap in CLOSED[size]:
            assert middle_is_apart(cut_box(turn, width, gap, size), closing=closing), (turn, gap)


@BOTH
@pytest.mark.parametrize("size", OPEN)
@pytest.mark.parametrize("width", [1, 3])
def test_wide_openings_stay_open(closing, size, width):
    for turn in range(0, 180, 15):
        for gap in OPEN[size]:
            assert Enclosed(closing=closing)(cut_box(turn, width, gap, size)).count == 1, (turn, gap)


@BOTH
@pytest.mark.parametrize("gap", range(1, 7))
def test_the_gap_set_is_the_gap_closed(closing, gap):
    drawing = cut_box(0, 1, gap)
    assert middle_is_apart(drawing, closing=closing, gap=gap / 64)
    assert not middle_is_apart(drawing, closing=closing, gap=0), "no gap is closed"
    assert not middle_is_apart(cut_box(0, 1, gap + 6), closing=closing, gap=gap / 64)


def test_a_small_gap_makes_two_regions_and_no_more():
    for turn in range(0, 180, 15):
        assert Enclosed()(cut_box(turn, 1, 2)).count == 2, turn


@BOTH
def test_many_gaps_in_one_outline(closing):
    circle = rings(24)
    y, x = np.mgrid[:64, :64] - 32
    dashed = circle * ((np.degrees(np.arctan2(y, x)) % 45) > 6)  # eight gaps, 2 to 3 pixels wide
    assert 0.8 < dashed.sum() / circle.sum() < 0.9
    regions = Enclosed(closing=closing)(dashed)
    assert regions.count == 2 and regions.labels[32, 32] == 1
    whole = Enclosed(closing=closing)(circle).labels == 1
    assert ((regions.labels == 1) & whole).sum() > 0.97 * (regions.labels == 1).sum() > 0.9 * whole.sum()


def test_a_closed_gap_is_shared_by_both_sides():
    drawing = figure((cv2.rectangle, (4, 4), (59, 59), 255, 1), (cv2.line, (4, 30), (59, 30), 255, 4))
    drawing[20:40, 31:33] = 0
    labels = Enclosed()(drawing).labels
    rooms = labels[15, 32], labels[50, 32]
    column = labels[26:36, 32].tolist()
    assert rooms[0] != rooms[1] and column[0] == rooms[0] and column[-1] == rooms[1]
    assert 1 <= column[3:7].count(rooms[0]) <= 3, "the gap is split near its middle"


def narrowed_ring() -> np.ndarray:
    """A ring three pixels thick, narrowed to one at the top."""
    ring = rings(24, 20)
    ring[6:14, 32] = 1
    ring[10, 32] = 0
    return ring


def bottle() -> np.ndarray:
    """A body with a neck four pixels wide."""
    drawing = figure((cv2.rectangle, (20, 30), (44, 58), 255, 1), (cv2.rectangle, (29, 10), (34, 30), 255, 1))
    drawing[30, 30:34] = 0
    return drawing


def dumbbell() -> np.ndarray:
    """Two small rooms, 11 pixels square, and a door of three pixels between them."""
    drawing = figure((cv2.rectangle, (10, 20), (22, 32), 255, 1), (cv2.rectangle, (22, 20), (34, 32), 255, 1))
    drawing[25:28, 22] = 0
    return drawing


def test_necks_are_not_gaps():
    assert Enclosed()(narrowed_ring()).count == 3
    assert Enclosed()(bottle()).count == 2, "a neck as wide as itself belongs to the body"
    corridor = figure((cv2.rectangle, (20, 4), (23, 60), 255, 1))
    corridor[30, 21:23] = 1, 0  # two pixels wide, and one at a place
    assert Enclosed()(corridor).count == 2


def test_morphology_parts_at_every_narrow_opening_and_trapped_balls_only_between_wide_areas():
    rooms = {name: Enclosed(closing=name)(dumbbell()).count - 1 for name in CLOSINGS}
    assert rooms == {"trapped_ball": 1, "morphology": 2}


@BOTH
def test_growing_back_leaves_no_open_pixel_to_the_wrong_side(closing):
    drawing = figure((cv2.polylines, [np.array([(4, 60), (32, 6), (60, 60)])], True, 255, 1))
    labels = Enclosed(strokes="none", closing=closing)(drawing).labels
    truth, _ = components(drawing == 0)
    pairs = np.stack([labels, truth])[:, drawing == 0]
    assert len(np.unique(pairs, axis=1).T) == 2, "acute corners too"


@BOTH
@pytest.mark.parametrize("inside", [1, 2, 3])
def test_narrow_regions_survive_closing(closing, inside):
    drawing = figure((cv2.rectangle, (10, 10), (50, 11 + inside), 255, 1))
    regions = Enclosed(closing=closing)(drawing)
    assert regions.count == 2 and (regions.labels[11 : 11 + inside, 11:50] == 1).all()


@given(gap=st.floats(0, 0.5), closing=st.sampled_from(sorted(CLOSINGS)), turn=st.sampled_from(sorted(TURNS)))
@settings(max_examples=60, deadline=None)
def test_closed_outlines_part_whatever_the_gap(gap, closing, turn):
    drawing = TURNS[turn][0](figure((cv2.rectangle, (12, 12), (52, 40), 255, 1), (cv2.circle, (32, 26), 8, 255, 1)))
    regions = Enclosed(gap=gap, closing=closing)(drawing)
    truth, count = components(drawing == 0)
    inner = [np.unique(regions.labels[(truth == i) & (drawing == 0)]) for i in range(1, count + 1)]
    assert count == 3 and len(np.concatenate(inner)) == len(np.unique(np.concatenate(inner)))
