"""Editing of label maps: what every operation keeps, what it undoes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ragaf_exp.core.errors import UserError
from ragaf_exp.graph.adjacency import Adjacency
from ragaf_exp.regions import editing
from ragaf_exp.regions.editing import Edited

maps = arrays(np.int16, st.tuples(st.integers(3, 12), st.integers(3, 12)), elements=st.integers(-1, 5))
full_maps = arrays(np.int16, st.tuples(st.integers(3, 12), st.integers(3, 12)), elements=st.integers(0, 5))


def sound(edited: Edited, before: np.ndarray, largest: int) -> None:
    """Labels partition the picture, areas fall, `came` names regions of before, and graph features are finite."""
    regions, came = edited
    assert regions.labels.shape == before.shape and regions.count == len(came)
    assert set(np.unique(regions.labels)) - {-1} == set(range(regions.count))
    areas = [np.count_nonzero(regions.labels == i) for i in range(regions.count)]
    assert areas == sorted(areas, reverse=True)
    assert -1 <= regions.background < regions.count and (regions.background >= 0) == (regions.count > 0)
    assert len(regions.parent) == len(regions.depth) == regions.count
    assert (came >= -1).all() and (came < largest).all() and len(set(came[came >= 0])) == (came >= 0).sum()
    for new, old in enumerate(came):
        assert old < 0 or ((regions.labels == new) & (before == old)).any(), "a region overlaps the one it came from"
    graph = Adjacency()(regions)
    assert np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()


@settings(deadline=None)
@given(maps)
def test_rebuilding_keeps_the_partition(labels):
    regions, came = editing.rebuild(labels)
    sound((regions, came), labels, 6)
    assert np.array_equal(np.append(came, -1)[regions.labels], labels)
    again, same = editing.rebuild(regions.labels)
    assert np.array_equal(again.labels, regions.labels) and np.array_equal(same, np.arange(regions.count))


@settings(deadline=None)
@given(full_maps, st.data())
def test_a_merge_joins_its_regions_and_no_others(labels, data):
    regions, _ = editing.rebuild(labels)
    if regions.count < 2:
        return
    which = data.draw(st.sets(st.integers(0, regions.count - 1), min_size=2))
    merged, came = editing.merge(regions, which)
    sound((merged, came), regions.labels, regions.count)
    assert merged.count == regions.count - len(which) + 1
    joined = merged.labels[np.isin(regions.labels, list(which))]
    assert len(set(joined.tolist())) == 1 and came[joined[0]] == min(which), "it came from the largest"


@settings(deadline=None)
@given(st.integers(6, 20), st.integers(6, 20), st.data())
def test_a_merge_undoes_a_split(height, width, data):
    labels = np.zeros((height, width), np.int16)
    labels[1:-1, 1:-1] = 1
    regions, _ = editing.rebuild(labels)
    which = int(regions.labels[height // 2, width // 2])
    column = data.draw(st.integers(2, width - 3))
    halves, came = editing.split(regions, which, [(column, -1), (column, height)])
    sound((halves, came), regions.labels, regions.count)
    inner = sorted(set(halves.labels[1:-1, 1:-1].ravel().tolist()))
    assert len(inner) == 2 and sorted(came[inner].tolist()) == [-1, which]
    back, _ = editing.merge(halves, inner)
    assert np.array_equal(back.labels == back.labels[height // 2, width // 2], regions.labels == which)


@settings(deadline=None)
@given(full_maps, st.data())
def test_deleted_regions_go_to_neighbours_and_the_others_stay(labels, data):
    regions, _ = editing.rebuild(labels)
    if regions.count < 2:
        return
    which = data.draw(st.sets(st.integers(0, regions.count - 1), min_size=1, max_size=regions.count - 1))
    left, came = editing.delete(regions, which)
    sound((left, came), regions.labels, regions.count)
    assert sorted(came.tolist()) == [i for i in range(regions.count) if i not in which]
    stays = ~np.isin(regions.labels, list(which))
    assert np.array_equal(came[left.labels[stays]], regions.labels[stays]) and (left.labels >= 0).all()


@settings(deadline=None)
@given(maps, st.data())
def test_painted_pixels_have_their_region_and_the_others_keep_theirs(labels, data):
    regions, _ = editing.rebuild(labels)
    mask = data.draw(arrays(bool, labels.shape))
    if not mask.any() or regions.count == 0:
        return
    into = data.draw(st.one_of(st.none(), st.integers(0, regions.count - 1)))
    painted, came = editing.paint(regions, mask, into)
    assert len(set(painted.labels[mask].tolist())) == 1
    assert came[painted.labels[mask][0]] == (-1 if into is None else into)
    assert np.array_equal(np.append(came, -1)[painted.labels[~mask]], regions.labels[~mask])


def test_the_border_decides_who_gets_a_deleted_region():
    labels = np.repeat([[0, 0, 0, 0, 1, 2, 2, 2]], 6, axis=0)
    labels[0, 4] = 0
    labels[4:, 3] = 1
    regions, came = editing.rebuild(labels)
    middle = came.tolist().index(1)
    left, origin = editing.delete(regions, [middle])
    assert came[origin[left.labels[2, 4]]] == 0, "its border with region 0 is longer"


SQUARE = editing.rebuild(np.repeat(np.arange(3, dtype=np.int16), 4)[None].repeat(6, 0))[0]


@pytest.mark.parametrize("call, says", [
    (lambda: editing.split(SQUARE, 0, [(1, 2), (2, 2)]), "does not part it"),
    (lambda: editing.split(SQUARE, 0, [(1, 2)]), "two points"),
    (lambda: editing.split(SQUARE, 5, [(0, 0), (9, 9)]), "regions 0 to 2"),
    (lambda: editing.merge(SQUARE, [1]), "at least 2"),
    (lambda: editing.merge(SQUARE, [1, 3]), "regions 0 to 2"),
    (lambda: editing.delete(SQUARE, [0, 1, 2]), "must remain"),
    (lambda: editing.paint(SQUARE, np.zeros((6, 12), bool)), "must have pixels"),
    (lambda: editing.paint(SQUARE, np.ones((2, 2), bool)), "size"),
    (lambda: editing.paint(SQUARE, np.eye(6, 12, dtype=bool), most=3), "max_regions=3: 4 regions"),
    (lambda: editing.rebuild(np.arange(9).reshape(3, 3), most=8), "9 regions"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(call, says):
    with pytest.raises(UserError, match=says):
        call()
