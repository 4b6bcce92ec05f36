"""Region graphs: edges of every type, features by hand, odd graphs, geometry under flips."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.errors import UserError
from ragaf_exp.graph import EDGE_FEATURES, NODE_FEATURES, Adjacency, Complete, Hybrid, Knn, NoEdges, Radius
from ragaf_exp.regions import Enclosed
from ragaf_exp.types import Regions

TYPES = [Adjacency, Knn, Radius, Hybrid, Complete, NoEdges]
SEEDS = st.integers(0, 10**6)


def random_regions(seed: int) -> Regions:
    """1 to 12 cells of a random Voronoi diagram, some with pixels of no region."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(8, 40, 2)
    sites = rng.random((rng.integers(1, 13), 2)) * (height, width)
    pixels = np.stack(np.mgrid[:height, :width], axis=-1) + 0.5
    cells = np.linalg.norm(pixels[:, :, None] - sites, axis=-1).argmin(axis=-1)
    kept, labels = np.unique(cells, return_inverse=True)
    labels = labels.reshape(height, width).astype(np.int16)
    inner = rng.random(labels.shape) < rng.choice([0, 0.1])
    lost = np.where(inner, -1, labels)
    if len(np.unique(lost[lost >= 0])) == len(kept):
        labels = lost.astype(np.int16)
    return Regions(labels=labels, count=len(kept), background=0)


def feature(graph, name: str) -> np.ndarray:
    if name in NODE_FEATURES:
        return graph.nodes[:, NODE_FEATURES.index(name)]
    return graph.edges[..., EDGE_FEATURES.index(name)]


def regions_of(*commands) -> Regions:
    canvas = np.zeros((64, 64), np.uint8)
    for command, *arguments in commands:
        command(canvas, *arguments)
    return Enclosed()(canvas / np.float32(255))


def ring_in_ring() -> Regions:
    return regions_of((cv2.circle, (32, 32), 24, 255, 1), (cv2.circle, (32, 32), 12, 255, 1))


@pytest.mark.parametrize("kind", TYPES)
@given(seed=SEEDS, loops=st.booleans())
@settings(max_examples=20, deadline=None)
def test_every_type_is_symmetric_and_finite(kind, seed, loops):
    regions = random_regions(seed)
    graph, n = kind(self_loops=loops)(regions), regions.count
    assert graph.nodes.shape == (n, len(NODE_FEATURES)) and graph.nodes.dtype == np.float32
    assert graph.edges.shape == (n, n, len(EDGE_FEATURES)) and graph.edges.dtype == np.float32
    assert graph.edge_mask.shape == (n, n) and graph.edge_mask.dtype == bool
    assert np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()
    assert (graph.edge_mask == graph.edge_mask.T).all() and (graph.edge_mask.diagonal() == loops).all()
    assert not graph.edges[~graph.edge_mask].any(), "no edge, no features"


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_features_stay_in_their_ranges(seed):
    graph = Complete()(random_regions(seed))
    for name in ("cx", "cy"):
        assert (abs(feature(graph, name)) < 1).all()
    for name in ("width", "height", "area", "sqrt_area", "compactness"):
        assert (feature(graph, name) > 0).all() and (feature(graph, name) <= 1).all()
    assert (feature(graph, "border") >= 0).all() and (feature(graph, "border") <= 1).all()
    for name, sign in (("dx", -1), ("dy", -1), ("log_size_ratio", -1), ("distance", 1), ("border", 1)):
        np.testing.assert_allclose(feature(graph, name), sign * feature(graph, name).T, atol=1e-6)


@given(seed=SEEDS, k=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_knn_degree(seed, k):
    regions = random_regions(seed)
    mask = Knn(k, self_loops=False)(regions).edge_mask
    assert (mask.sum(axis=1) >= min(k, regions.count - 1)).all()
    assert (Knn(k + 1, self_loops=False)(regions).edge_mask >= mask).all()
    away = feature(Complete()(regions), "distance").copy()
    np.fill_diagonal(away, np.inf)
    reach = np.sort(away, axis=1)[:, min(k, regions.count - 1) - 1]
    near = away <= np.maximum(reach[:, None], reach[None, :])
    assert not (mask & ~near).any(), "an edge is among the k nearest of one of its ends"


@given(seed=SEEDS, one=st.floats(0.01, 3), two=st.floats(0.01, 3))
@settings(max_examples=40, deadline=None)
def test_radius_is_monotone(seed, one, two):
    regions = random_regions(seed)
    small, large = (Radius(r)(regions).edge_mask for r in sorted((one, two)))
    assert (small <= large).all() and Radius(3)(regions).edge_mask.all()


@given(seed=SEEDS, k=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_hybrid_is_the_union(seed, k):
    regions = random_regions(seed)
    union = Adjacency()(regions).edge_mask | Knn(k)(regions).edge_mask
    np.testing.assert_array_equal(Hybrid(k)(regions).edge_mask, union)


@given(seed=SEEDS, axis=st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_flip_maps_features(seed, axis):
    regions = random_regions(seed)
    if (regions.labels < 0).any():
        return  # which region an unlabelled pixel counts to may hang on ties
    flipped = Regions(np.flip(regions.labels, axis).copy(), regions.count, regions.background)
    one, two = Complete()(regions), Complete()(flipped)
    node_sign = np.array([-1 if name == ("cy", "cx")[axis] else 1 for name in NODE_FEATURES])
    edge_sign = np.array([-1 if name == ("dy", "dx")[axis] else 1 for name in EDGE_FEATURES])
    # Harmonics sort pixels into directions, and one at the edge of two may fall to either: seen in tiny regions.
    exact = [i for i, name in enumerate(NODE_FEATURES) if not name.startswith("harmonic")]
    np.testing.assert_allclose((one.nodes * node_sign)[:, exact], two.nodes[:, exact], atol=1e-5)
    np.testing.assert_allclose(one.edges * edge_sign, two.edges, atol=1e-5)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_quarter_turn_maps_features(seed):
    regions = random_regions(seed)
    if (regions.labels < 0).any():
        return
    turned = Regions(regions.labels.T.copy(), regions.count, regions.background)
    one, two = Complete()(regions), Complete()(turned)
    for a, b in (("cx", "cy"), ("width", "height"), ("dx", "dy"), ("border", "border")):
        np.testing.assert_allclose(feature(one, a), feature(two, b), atol=1e-6)
    np.testing.assert_allclose(feature(one, "log_aspect"), -feature(two, "log_aspect"), atol=1e-5)


def test_node_features_by_hand():
    labels = np.zeros((20, 40), np.int16)
    labels[5:15, 20:40] = 1
    graph = Complete()(Regions(labels, 2, 0))
    for name, value in (
        *(("cx", 0.5), ("cy", 0), ("width", 0.5), ("height", 0.5), ("area", 0.25), ("sqrt_area", 0.5)),
        *(("log_aspect", np.log(2)), ("background", 0)),
    ):
        assert feature(graph, name)[1] == pytest.approx(value, abs=1e-6), name
    assert feature(graph, "background")[0] == 1 and feature(graph, "width")[0] == 1
    assert feature(graph, "cx")[0] == pytest.approx(-1 / 6, abs=1e-6)


def test_edge_features_by_hand():
    labels = np.zeros((32, 32), np.int16)
    labels[:, 8:] = 1
    edges = Complete()(Regions(labels, 2, 0))
    assert feature(edges, "dx")[0, 1] == pytest.approx(1) and feature(edges, "dx")[1, 0] == pytest.approx(-1)
    assert feature(edges, "distance")[0, 1] == pytest.approx(1) and feature(edges, "dy")[0, 1] == 0
    assert feature(edges, "log_size_ratio")[0, 1] == pytest.approx(np.log(3))
    assert feature(edges, "border")[0, 1] == pytest.approx(32 / 80, rel=0.07)  # of 8 + 8 + 32 + 32
    assert feature(edges, "adjacent").tolist() == [[0, 1], [1, 0]]


def test_compactness_tells_discs_from_bars_however_turned():
    disc = regions_of((cv2.circle, (32, 32), 20, 255, 1))
    bar = regions_of((cv2.rectangle, (8, 28), (56, 36), 255, 1))
    turned = regions_of((cv2.polylines, [np.array([(12, 46), (46, 12), (52, 18), (18, 52)])], True, 255, 1))
    values = [feature(Complete()(r), "compactness")[1] for r in (disc, bar, turned)]
    assert values[0] > 0.93 and values[1] == pytest.approx(values[2], abs=0.1) and max(values[1:]) < 0.6


def test_rings_are_adjacent_to_the_next_only():
    for finder in (Enclosed(), Enclosed(strokes="none")):
        canvas = np.zeros((64, 64), np.uint8)
        cv2.circle(canvas, (32, 32), 24, 255, 2)
        cv2.circle(canvas, (32, 32), 12, 255, 2)
        graph = Adjacency()(finder(canvas / np.float32(255)))
        assert graph.edge_mask.astype(int).tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
        assert feature(graph, "border")[1, 2] > 0.9, "the inner disc lies within the ring all round"


def test_regions_that_meet_at_a_corner_only_share_no_border():
    labels = np.kron(np.array([[0, 1], [1, 2]]), np.ones((8, 8))).astype(np.int16)
    graph = Complete()(Regions(labels, 3, 1))
    assert feature(graph, "border")[0, 2] == 0 and feature(graph, "adjacent")[0].tolist() == [0, 1, 0]


def test_knn_is_made_symmetric():
    labels = np.zeros((4, 64), np.int16)  # centres at 16, 36, 44, 50: the first is nobody's nearest
    for index, start in enumerate((32, 40, 48), start=1):
        labels[:, start : start + 8] = index
    labels[:, 56:] = -1
    mask = Knn(1, self_loops=False)(Regions(labels, 4, 0)).edge_mask
    assert mask[0].tolist() == [False, True, False, False] and mask[1, 0]


def test_panes_are_adjacent_across_bars_and_not_across_the_corner():
    window = regions_of(
        (cv2.rectangle, (8, 8), (56, 56), 255, 1),
        (cv2.line, (32, 8), (32, 56), 255, 1),
        (cv2.line, (8, 32), (56, 32), 255, 1),
    )
    assert window.count == 5
    panes = [int(window.labels[y, x]) for y, x in ((20, 20), (20, 44), (44, 44), (44, 20))]
    mask = Adjacency(self_loops=False)(window).edge_mask
    around = [[mask[a, b] for b in panes] for a in panes]
    assert np.array(around).astype(int).tolist() == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]


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
        (lambda: Radius(radius=0), "graph.radius"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(UserError, match=f"^{key}="):
        build()
