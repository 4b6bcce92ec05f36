"""Containment: which region encloses which, against holes filled in masks, and on known figures."""

import cv2
import numpy as np
import pytest
from drawings import SEEDS, TURNS, drawings, figure, house, house_places, mosaic, nested, rings, turned
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_fill_holes

from ragaf_exp.core.types import Regions
from ragaf_exp.graph.features import ancestors
from ragaf_exp.regions import Enclosed

EIGHT = np.ones((3, 3), bool)  # what a 4-connected region leaves is parted where it is not even joined by corners


def in_holes(regions: Regions) -> np.ndarray:
    """(N,N) bool: all of j lies in holes of i, by filling them; asserts that j lies there whole or not at all."""
    encloses = np.zeros((regions.count, regions.count), bool)
    for outer in range(regions.count):
        mask = regions.labels == outer
        holes = binary_fill_holes(mask, EIGHT) & ~mask
        for inner in range(regions.count):
            within = holes[regions.labels == inner]
            assert within.all() or not within.any()
            encloses[outer, inner] = within.all()
    return encloses


def check_forest(regions: Regions, levels: int) -> None:
    """Parents lead up, one level a step, to a region without a parent."""
    for index, (parent, depth) in enumerate(zip(regions.parent.tolist(), regions.depth.tolist(), strict=True)):
        assert -1 <= parent < regions.count and parent != index and 0 <= depth <= levels
        assert depth == (0 if parent < 0 else regions.depth[parent] + 1), "so no walk up comes round again"


def check_against_masks(regions: Regions) -> None:
    """The tree says what the masks say; the parent is the innermost region around."""
    encloses = in_holes(regions)
    check_forest(regions, 32)
    np.testing.assert_array_equal(ancestors(regions.parent), encloses)
    np.testing.assert_array_equal(regions.depth, encloses.sum(axis=0))
    for child, parent in enumerate(regions.parent.tolist()):
        around = np.flatnonzero(encloses[:, child])
        assert (parent < 0) == (len(around) == 0)
        assert all(encloses[other, parent] for other in around if other != parent), "innermost"


@given(seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_containment_in_a_mosaic_agrees_with_masks(seed):
    check_against_masks(nested(mosaic(seed)))


@given(sketch=drawings(), most=st.sampled_from([3, 16, 60]), gap=st.sampled_from([0.0, 0.03]))
@settings(max_examples=100, deadline=None)
def test_containment_in_drawings_agrees_with_masks(sketch, most, gap):
    check_against_masks(Enclosed(most, 0.0, gap, levels=32)(sketch))


@given(sketch=drawings(), levels=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_deeper_levels_are_cut_off(sketch, levels):
    full, cut = (Enclosed(60, 0.0, 0.0, levels=n)(sketch) for n in (32, levels))
    check_forest(cut, levels)
    np.testing.assert_array_equal(cut.depth, np.minimum(full.depth, levels))
    encloses = ancestors(full.parent)
    for child, parent in enumerate(cut.parent.tolist()):
        if full.depth[child] <= levels:
            assert parent == full.parent[child]
        elif levels:
            assert encloses[parent, child] and full.depth[parent] == levels - 1
        else:
            assert parent == -1


@given(sketch=drawings())
@settings(max_examples=40, deadline=None)
def test_strokes_without_a_region_change_no_containment(sketch):
    one, two = Enclosed(60, 0.0, 0.0)(sketch), Enclosed(60, 0.0, 0.0, strokes="none")(sketch)
    open_ = two.labels >= 0
    number = dict(zip(two.labels[open_].tolist(), one.labels[open_].tolist(), strict=True)) | {-1: -1}
    assert [number[int(p)] for p in two.parent] == [int(one.parent[number[i]]) for i in range(two.count)]


@given(seed=SEEDS, turn=st.sampled_from(sorted(TURNS)))
@settings(max_examples=40, deadline=None)
def test_turning_changes_no_containment(seed, turn):
    regions = nested(mosaic(seed))
    other = turned(regions, turn)
    assert other.parent.tolist() == regions.parent.tolist() and other.depth.tolist() == regions.depth.tolist()


def test_ring_in_ring_in_ring():
    regions = Enclosed()(rings(28, 20, 12, 5))
    chain = [int(regions.labels[32, x]) for x in (1, 8, 16, 25, 32)]
    assert sorted(chain) == [0, 1, 2, 3, 4]
    assert [int(regions.parent[i]) for i in chain] == [-1, *chain[:-1]]
    assert [int(regions.depth[i]) for i in chain] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("levels", range(5))
def test_levels_of_rings(levels):
    regions = Enclosed(levels=levels)(rings(28, 20, 12, 5))
    chain = [int(regions.labels[32, x]) for x in (1, 8, 16, 25, 32)]
    above = [chain[min(i, levels) - 1] if min(i, levels) else -1 for i in range(5)]
    assert [int(regions.parent[i]) for i in chain] == above
    assert [int(regions.depth[i]) for i in chain] == [min(i, levels) for i in range(5)]


def test_house_in_a_frame():
    regions = Enclosed()(house())
    at = house_places(regions)
    parents = {name: int(regions.parent[index]) for name, index in at.items()}
    assert parents["outside"] == -1 and parents["frame"] == at["outside"] and parents["pane"] == at["wall"]
    assert all(parents[name] == at["frame"] for name in ("wall", "roof", "door")), "the door stands on the ground"
    assert {name: int(regions.depth[index]) for name, index in at.items()} == {
        **{"outside": 0, "frame": 1, "wall": 2, "roof": 2, "door": 2, "pane": 3}
    }


def test_regions_that_share_a_hole_are_siblings():
    squares = [(cv2.rectangle, (x, 20), (x + 16, 40), 255, 1) for x in (14, 30)]
    regions = Enclosed()(figure((cv2.rectangle, (6, 6), (58, 58), 255, 1), *squares))
    left, right, frame = (int(regions.labels[30, x]) for x in (22, 38, 54))
    assert len({left, right, frame, regions.background}) == 4
    assert regions.parent[left] == regions.parent[right] == frame and regions.parent[frame] == regions.background


def test_what_touches_the_rim_lies_within_nothing():
    cut = figure((cv2.circle, (0, 32), 20, 255, 1), (cv2.line, (0, 50), (63, 50), 255, 1))
    regions = Enclosed()(cut)
    assert regions.count > 2 and (regions.parent == -1).all() and (regions.depth == 0).all()


def test_a_way_out_over_a_corner_is_a_way_out():
    ring = np.zeros((5, 5), np.int16)
    ring[1:4, 1:4] = 1
    ring[2, 2] = 2
    assert nested(ring).parent.tolist() == [-1, 0, 1]
    ring[1, 1] = 0  # the ring is still one region, but its hole meets the ground at a corner
    assert nested(ring).parent.tolist() == [-1, 0, 0]


def test_a_way_out_over_a_corner_of_a_drawing_is_a_way_out():
    drawing = ["#...#", "#.#.#", "..#..", ".#.#.", "..#..", ".##.#", "#.#.."]  # a diamond; at its foot another outline
    regions = Enclosed(60, 0.0, 0.0)(np.array([[mark == "#" for mark in row] for row in drawing]))
    assert regions.labels[3, 2] == 1 == regions.labels[4, 2] and regions.labels[5, 1] == 2
    assert regions.parent.tolist() == [-1, -1, -1], "the foot meets the other region's corner, and that the rim"


@pytest.mark.parametrize("labels", [np.zeros((1, 1)), np.zeros((1, 9)), np.full((4, 4), -1), np.arange(5)[None]])
def test_the_smallest_maps(labels):
    regions = nested(labels)
    assert regions.parent.dtype == regions.depth.dtype == np.int16 and len(regions.parent) == regions.count
    assert (regions.parent == -1).all() and (regions.depth == 0).all()
