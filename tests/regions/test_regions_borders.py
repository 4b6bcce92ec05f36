"""Borders, label growth and flooding against slow versions that are plainly right."""

import numpy as np
import pytest
from drawings import SEEDS, mosaic
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label as components
from scipy.spatial.distance import cdist

from ragaf_exp.regions.borders import by_area, contract, crossings, follow, renumber, tally
from ragaf_exp.regions.flooding import flood
from ragaf_exp.regions.gaps import CLOSINGS, areas
from ragaf_exp.regions.growth import fill
from ragaf_exp.regions.merging import merge

SHAPES = st.one_of(
    st.sampled_from([(1, 1), (1, 9), (9, 1), (1, 2), (2, 2)]), st.tuples(st.integers(1, 13), st.integers(1, 13))
)


def random_labels(seed: int, shape: tuple[int, int], low: int = -1) -> tuple[np.ndarray, int]:
    """A label map and the number of labels, not all of which need occur."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 7))
    return rng.integers(low, count, shape).astype(np.int16), count


def slow_crossings(labels: np.ndarray, count: int, steps: list[tuple[int, int]]) -> np.ndarray:
    """Ordered pairs of pixels `steps` apart with different labels, in a picture set into its surroundings."""
    framed = np.pad(np.where(labels < 0, count, labels), 1, constant_values=count)
    result = np.zeros((count + 1, count + 1), int)
    for y in range(framed.shape[0]):
        for x in range(framed.shape[1]):
            for dy, dx in steps:
                if 0 <= y + dy < framed.shape[0] and 0 <= x + dx < framed.shape[1]:
                    a, b = framed[y, x], framed[y + dy, x + dx]
                    result[a, b] += a != b
    return result


@given(seed=SEEDS, shape=SHAPES)
@settings(max_examples=60, deadline=None)
def test_crossings_count_pixel_pairs(seed, shape):
    labels, count = random_labels(seed, shape)
    straight, diagonal = crossings(labels, count)
    np.testing.assert_array_equal(straight, slow_crossings(labels, count, [(0, 1), (1, 0), (0, -1), (-1, 0)]))
    np.testing.assert_array_equal(diagonal, slow_crossings(labels, count, [(1, 1), (1, -1), (-1, 1), (-1, -1)]))


def slow_fill(labels: np.ndarray) -> np.ndarray:
    """The nearest label in straight steps, the highest of several: no path is longer than the straight steps
    between two pixels, for a label in its way would be nearer."""
    owned, every = np.argwhere(labels >= 0), np.argwhere(labels > -9)
    if len(owned) == 0:
        return labels
    away = cdist(every, owned, "cityblock")
    nearest = away == away.min(axis=1, keepdims=True)
    return np.where(nearest, labels[labels >= 0], -1).max(axis=1).reshape(labels.shape)


@given(seed=SEEDS, shape=SHAPES, bare=st.sampled_from([0.0, 0.3, 0.8, 0.97, 1.0]))
@settings(max_examples=80, deadline=None)
def test_fill_gives_the_nearest_label_and_the_highest_on_ties(seed, shape, bare):
    labels, _ = random_labels(seed, shape, low=0)
    labels[np.random.default_rng(seed).random(shape) < bare] = -1
    before = labels.copy()
    np.testing.assert_array_equal(fill(labels), slow_fill(labels))
    np.testing.assert_array_equal(labels, before, "the map given is left as it is")


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_fill_keeps_areas_connected(seed):
    labels = mosaic(seed)
    labels[labels % 3 == 1] = -1
    grown = fill(labels)
    if (labels >= 0).any():
        assert (grown >= 0).all() and (grown[labels >= 0] == labels[labels >= 0]).all()
        for index in np.unique(grown):
            assert components(grown == index)[1] == 1


@given(seed=SEEDS, shape=SHAPES, closing=st.sampled_from(sorted(CLOSINGS)), most=st.sampled_from([1, 3, 1024]))
@settings(max_examples=80, deadline=None)
def test_without_gap_closing_areas_are_the_connected_components(seed, shape, closing, most):
    rng = np.random.default_rng(seed)
    stroke = rng.random(shape) < rng.choice([0, 0.2, 0.5, 0.8, 1])
    labels, sizes = areas(stroke, closing, 0.0, most)
    truth, count = components(~stroke)
    counts = np.bincount(truth.ravel(), minlength=count + 1)[1:]
    assert sizes.tolist() == sorted(counts.tolist(), reverse=True)[:most] and labels.dtype == np.int16
    for index, size in enumerate(sizes):
        of = np.unique(truth[labels == index])
        assert len(of) == 1 and of[0] > 0 and counts[of[0] - 1] == size == (labels == index).sum()
    assert (labels >= 0).sum() == sum(sizes) and labels.max(initial=-1) == len(sizes) - 1


@pytest.mark.parametrize(
    ("depth", "need", "expected"),
    [
        ([5, 2, 4], {2: 4}, [0, 0, 1]),  # both are 4 deep: apart, and the pass goes to the deeper side
        ([5, 2, 4], {2: 5}, [0, 0, 0]),  # one is not 5 deep
        ([5, 2, 0, 4], {}, [0, 0, -1, 1]),  # a stroke parts, whatever is needed
        ([1, 0, 1], {1: 255}, [0, -1, 1]),  # however thin
        ([4, 1, 3, 1, 5], {1: 4}, [0, 0, 0, 1, 1]),  # the shallow middle joins the first, and the two stay apart
        ([4, 1, 3, 1, 5], {1: 5}, [0, 0, 0, 0, 0]),
        ([5, 1, 4, 2, 4], {1: 4, 2: 5}, [1, 1, 0, 0, 0]),  # each opening has its own measure
    ],
)
def test_basins_are_distinguished_by_their_depth(depth, need, expected):
    table = np.full((2, 256), 255, np.uint8)
    for saddle, level in need.items():
        table[:, saddle] = level
    labels, areas = flood(np.array([depth], np.uint8), table, 9)
    assert labels[0].tolist() == expected
    assert areas.tolist() == [expected.count(i) for i in range(max(expected) + 1)]


@pytest.mark.parametrize(("last", "expected"), [(6, [-1, 1, 0, 0, 0]), (0, [-1, 0, 0, 0, -1])])
def test_the_rim_has_a_separate_measure(last, expected):
    table = np.full((2, 256), 255, np.uint8)
    table[1, 2] = 5  # only where one side has reached the picture's rim
    depth = np.zeros((3, 5), np.uint8)
    depth[1] = 0, 5, 2, 6, last
    assert flood(depth, table, 9)[0][1].tolist() == expected


@given(seed=SEEDS, shape=st.tuples(st.integers(1, 24), st.integers(1, 24)), most=st.sampled_from([1, 4, 1024]))
@settings(max_examples=80, deadline=None)
def test_basins_are_connected_and_lose_no_area(seed, shape, most):
    rng = np.random.default_rng(seed)
    depth = rng.integers(0, rng.integers(2, 12), shape).astype(np.uint8)
    labels, areas = flood(depth, np.sort(rng.integers(0, 14, (2, 256)), axis=1).astype(np.uint8), most)
    truth, count = components(depth > 0)
    np.testing.assert_array_equal(np.bincount(labels[labels >= 0], minlength=len(areas)), areas)
    assert len(areas) <= most and (np.diff(areas) <= 0).all() and not (labels[depth == 0] >= 0).any()
    if most == 1024:
        assert len(areas) >= count and (labels[depth > 0] >= 0).all()
    for index in range(len(areas)):
        mask = labels == index
        assert components(mask)[1] == 1 and len(np.unique(truth[mask])) == 1


def test_follow_numbers_groups_by_their_lowest_member():
    assert follow(np.array([0, 1, 1, 4, 3, 2, 6])).tolist() == [0, 1, 1, 2, 2, 1, 3]
    assert follow(np.array([1, 2, 3, 3])).tolist() == [0, 0, 0, 0]


@given(seed=SEEDS, size=st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_contract_adds_up_groups(seed, size):
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 9, (size, size)).astype(np.int32)
    group = np.unique(rng.integers(0, size, size), return_inverse=True)[1]
    out = contract(pairs, group)
    for i in range(len(out)):
        for j in range(len(out)):
            assert out[i, j] == (0 if i == j else pairs[np.ix_(group == i, group == j)].sum())


@given(seed=SEEDS, shape=SHAPES)
@settings(max_examples=40, deadline=None)
def test_numbering_by_area(seed, shape):
    labels, count = random_labels(seed, shape, low=0)
    areas = tally(labels, count)
    np.testing.assert_array_equal(areas, np.bincount(labels.ravel(), minlength=count))
    number = by_area(areas)
    assert sorted(number) == list(range(count))
    np.testing.assert_array_equal(tally(renumber(labels, number), count), -np.sort(-areas))
    for a in range(count):
        assert all(number[a] < number[b] for b in range(a + 1, count) if areas[a] == areas[b]), "ties keep their order"


@given(seed=SEEDS, least=st.integers(0, 40), most=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_merge_conserves_area_and_ends(seed, least, most):
    rng = np.random.default_rng(seed)
    labels = np.unique(rng.integers(0, 12, (9, 11)), return_inverse=True)[1].reshape(9, 11)
    count = int(labels.max()) + 1
    areas, borders = np.bincount(labels.ravel()), crossings(labels, count)[0][:count, :count]
    assert (borders == borders.T).all() and not borders.diagonal().any()
    background = int(rng.integers(count))
    group = merge(borders, areas, background, least, most)
    merged = np.bincount(group, weights=areas)
    assert merged.sum() == areas.sum() and len(merged) <= most and (merged > 0).all()
    assert (np.delete(merged, group[background]) >= least).all()


@pytest.mark.parametrize("longest", [0, 1])
def test_small_region_joins_the_longest_border(longest):
    labels = np.repeat(np.array([[longest] * 6 + [1 - longest] * 4]), 10, axis=0)
    labels[4:6, 4:6] = 2  # borders the one on six sides, the other on two
    group = merge(crossings(labels, 3)[0][:3, :3], np.bincount(labels.ravel()), 1, 10, 9)
    assert group[2] == group[longest] != group[1 - longest]
