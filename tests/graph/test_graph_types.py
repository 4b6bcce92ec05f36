"""Region graphs: which edges each type has, on random regions and on known figures."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from drawings import SEEDS, TURNS, feature, figure, house, house_places, nested, random_regions, turned
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Regions
from ragaf_exp.graph import (
    EDGE_FEATURES,
    NODE_FEATURES,
    Adjacency,
    Complete,
    Containment,
    Hierarchical,
    Hybrid,
    Knn,
    NoEdges,
    Radius,
)
from ragaf_exp.graph.features import geometry
from ragaf_exp.regions import Enclosed

TYPES = [Adjacency, Knn, Radius, Hybrid, Containment, Hierarchical, Complete, NoEdges]


def edges(kind: type, regions: Regions, **options) -> np.ndarray:
    return kind(self_loops=False, **options)(regions).edge_mask


@pytest.mark.parametrize("kind", TYPES)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_every_type_is_symmetric_and_finite(kind, seed):
    regions = random_regions(seed)
    n = regions.count
    for loops in (True, False):
        graph = kind(self_loops=loops)(regions)
        assert graph.nodes.shape == (n, len(NODE_FEATURES)) and graph.nodes.dtype == np.float32
        assert graph.edges.shape == (n, n, len(EDGE_FEATURES)) and graph.edges.dtype == np.float32
        assert graph.edge_mask.shape == (n, n) and graph.edge_mask.dtype == bool
        assert np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()
        assert (graph.edge_mask == graph.edge_mask.T).all() and (graph.edge_mask.diagonal() == loops).all()
        assert not graph.edges[~graph.edge_mask].any(), "no edge, no features"


@pytest.mark.parametrize("kind", TYPES)
@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_self_loops_change_the_diagonal_only(kind, seed):
    regions = random_regions(seed)
    looped, plain, whole = kind()(regions), kind(self_loops=False)(regions), Complete()(regions)
    own = np.eye(regions.count, dtype=bool)
    np.testing.assert_array_equal(looped.edge_mask, plain.edge_mask | own)
    np.testing.assert_array_equal(looped.nodes, plain.nodes)
    for graph in (looped, plain):  # features of an edge are the same whatever edges there are besides
        np.testing.assert_array_equal(graph.edges[graph.edge_mask], whole.edges[graph.edge_mask])


@pytest.mark.parametrize("kind", TYPES)
@given(seed=SEEDS, turn=st.sampled_from(sorted(TURNS)))
@settings(max_examples=25, deadline=None)
def test_turning_the_sketch_changes_no_edge(kind, seed, turn):
    regions = random_regions(seed)
    away = np.sort(geometry(regions).distance, axis=1)
    assume((np.diff(away, axis=1) > 1e-5).all() and (abs(away - 0.5) > 1e-5).all())  # near ties may fall either way
    np.testing.assert_array_equal(edges(kind, turned(regions, turn)), edges(kind, regions))


@given(seed=SEEDS, k=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_knn_degree(seed, k):
    regions = random_regions(seed)
    mask = edges(Knn, regions, k=k)
    assert (mask.sum(axis=1) >= min(k, regions.count - 1)).all()
    assert (edges(Knn, regions, k=k + 1) >= mask).all()
    away = feature(Complete()(regions), "distance").copy()
    np.fill_diagonal(away, np.inf)
    reach = np.sort(away, axis=1)[:, max(0, min(k, regions.count - 1) - 1)]
    assert mask[away < reach[:, None]].all(), "every nearer one"
    assert not (mask & (away > np.maximum(reach[:, None], reach[None, :]))).any(), "near one of its ends"
    assert mask.sum() <= 2 * regions.count * min(k, regions.count - 1)


@given(seed=SEEDS, one=st.floats(0.01, 3), two=st.floats(0.01, 3))
@settings(max_examples=60, deadline=None)
def test_radius_is_monotone(seed, one, two):
    regions = random_regions(seed)
    small, large = (edges(Radius, regions, radius=r) for r in sorted((one, two)))
    assert (small <= large).all() and Radius(3)(regions).edge_mask.all()
    away = feature(Complete()(regions), "distance")
    np.testing.assert_array_equal(Radius(one)(regions).edge_mask, away <= one)


@given(seed=SEEDS, k=st.integers(1, 5), border=st.sampled_from([0, 0.02, 0.3]))
@settings(max_examples=60, deadline=None)
def test_hybrid_is_the_union(seed, k, border):
    regions = random_regions(seed)
    union = edges(Adjacency, regions, min_border=border) | edges(Knn, regions, k=k)
    np.testing.assert_array_equal(edges(Hybrid, regions, k=k, min_border=border), union)


@given(seed=SEEDS, border=st.sampled_from([0, 0.02, 0.3]), levels=st.integers(0, 4), shuffled=st.booleans())
@settings(max_examples=60, deadline=None)
def test_hierarchical_is_adjacency_within_a_level_and_containment(seed, border, levels, shuffled):
    regions = random_regions(seed)
    regions = nested(regions.labels, regions.background, levels)
    if shuffled:  # in a true nesting, neighbours are of one level or parent and child
        regions = replace(regions, depth=np.random.default_rng(seed).permutation(regions.count).astype(np.int16) // 2)
    next_to = edges(Adjacency, regions, min_border=border)
    expected = edges(Containment, regions)
    for i, j in np.argwhere(next_to):
        expected[i, j] |= regions.depth[i] == regions.depth[j]
    np.testing.assert_array_equal(edges(Hierarchical, regions, min_border=border), expected)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_containment_is_a_forest_of_parents(seed):
    regions = random_regions(seed)
    mask = edges(Containment, regions)
    links = {(min(i, p), max(i, p)) for i, p in enumerate(regions.parent.tolist()) if p >= 0}
    assert {(int(i), int(j)) for i, j in np.argwhere(np.triu(mask))} == links
    assert len(links) == (regions.parent >= 0).sum(), "as many edges as regions with a parent: no cycle"


@given(seed=SEEDS, border=st.sampled_from([0.0, 0.02, 0.3]))
@settings(max_examples=40, deadline=None)
def test_adjacency_is_a_border_longer_than_the_least(seed, border):
    regions = random_regions(seed)
    share = feature(Complete()(regions), "border")
    mask = edges(Adjacency, regions, min_border=border)
    np.testing.assert_array_equal(mask, share > border)
    np.testing.assert_array_equal(feature(Complete()(regions), "adjacent") > 0, share > 0)


def test_complete_and_none():
    regions = Enclosed()(house())
    assert edges(Complete, regions).sum() == 30 and not edges(NoEdges, regions).any()
    assert NoEdges()(regions).edge_mask.sum() == 6


@pytest.mark.parametrize("strokes", ["nearest", "none"])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_rings_are_adjacent_to_the_next_only(strokes, width):
    canvas = figure((cv2.circle, (32, 32), 24, 255, width), (cv2.circle, (32, 32), 12, 255, width))
    regions = Enclosed(strokes=strokes)(canvas)
    chain = [int(regions.labels[32, x]) for x in (1, 13, 32)]
    expected = [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    for kind in (Adjacency, Containment, Hierarchical):
        assert kind()(regions).edge_mask[np.ix_(chain, chain)].astype(int).tolist() == expected, kind


def test_edges_of_the_house():
    regions = Enclosed()(house())
    at = house_places(regions)

    def joined(kind: type) -> set[str]:
        mask = np.triu(edges(kind, regions) * 1)
        names = {index: name for name, index in at.items()}
        return {"-".join(sorted((names[int(i)], names[int(j)]))) for i, j in np.argwhere(mask)}

    tree = {"frame-outside", "frame-wall", "frame-roof", "door-frame", "pane-wall"}
    assert joined(Containment) == tree
    assert joined(Hierarchical) == tree | {"roof-wall", "door-wall"}
    assert joined(Adjacency) == tree | {"roof-wall", "door-wall"}, "here all borders are within a level or to the parent"


def test_knn_is_made_symmetric():
    labels = np.zeros((4, 64), np.int16)  # centres at 16, 36, 44, 50: the first is the nearest of none
    for index, start in enumerate((32, 40, 48), start=1):
        labels[:, start : start + 8] = index
    labels[:, 56:] = -1
    mask = edges(Knn, nested(labels), k=1)
    assert mask[0].tolist() == [False, True, False, False] and mask[1, 0]


def test_panes_are_adjacent_across_bars_and_not_across_the_corner():
    bars = [((32, 8), (32, 56)), ((8, 32), (56, 32))]
    drawing = figure((cv2.rectangle, (8, 8), (56, 56), 255, 1), *((cv2.line, a, b, 255, 1) for a, b in bars))
    window = Enclosed()(drawing)
    panes = [int(window.labels[y, x]) for y, x in ((20, 20), (20, 44), (44, 44), (44, 20))]
    for kind in (Adjacency, Hierarchical):
        around = edges(kind, window)[np.ix_(panes, panes)]
        assert around.astype(int).tolist() == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (16, 16)])
def test_no_region_and_one_region(kind, loops, shape):
    none = kind(self_loops=loops)(Enclosed()(np.ones(shape, np.float32)))
    assert none.nodes.shape == (0, len(NODE_FEATURES)) and none.edges.shape == (0, 0, len(EDGE_FEATURES))
    assert none.edge_mask.shape == (0, 0)
    one = kind(self_loops=loops)(Enclosed()(np.zeros(shape, np.float32)))
    assert one.edge_mask.tolist() == [[loops]] and feature(one, "area")[0] == 1
    assert np.isfinite(one.nodes).all() and not one.edges.any()


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Knn(k=0), "graph.k"),
        (lambda: Hybrid(k=-2), "graph.k"),
        (lambda: Hybrid(min_border=1.0), "graph.min_border"),
        (lambda: Adjacency(min_border=-0.1), "graph.min_border"),
        (lambda: Hierarchical(min_border=float("nan")), "graph.min_border"),
        (lambda: Radius(radius=0), "graph.radius"),
        (lambda: Radius(radius=float("nan")), "graph.radius"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(UserError, match=f"^{key}=.*take "):
        build()
