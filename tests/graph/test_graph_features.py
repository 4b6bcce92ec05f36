"""Node and edge features: against slow versions, by hand, and as turns of the sketch must change them."""

import cv2
import numpy as np
import pytest
from drawings import SEEDS, TURNS, feature, figure, house, house_places, nested, random_regions, rings, turned
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.core.types import Graph, Regions
from ragaf_exp.graph import EDGE_FEATURES, NODE_FEATURES, Complete
from ragaf_exp.graph.descriptors import BINS, HARMONICS
from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.growth import fill

EDGES = "dx dy dx_own dy_own distance border log_size_ratio adjacent contains inside".split()
HARMONIC = [f"harmonic_{k}" for k in range(1, HARMONICS + 1)]


def slow_nodes(regions: Regions) -> dict[str, list[float]]:
    """All but perimeters and harmonics, from the list of each region's pixels."""
    (height, width), table = regions.labels.shape, {}
    for index in range(regions.count):
        y, x = np.nonzero(regions.labels == index)
        box_width, box_height = np.ptp(x) + 1, np.ptp(y) + 1
        for name, value in {
            **{"cx": (x.mean() + 0.5) / width * 2 - 1, "cy": (y.mean() + 0.5) / height * 2 - 1},
            **{"width": box_width / width, "height": box_height / height, "area": len(x) / regions.labels.size},
            **{"sqrt_area": (len(x) / regions.labels.size) ** 0.5, "log_aspect": np.log(box_width / box_height)},
            **{"background": float(index == regions.background), "depth": regions.depth[index] / 4},
        }.items():
            table.setdefault(name, []).append(value)
    return table


def slow_lengths(labels: np.ndarray, count: int) -> np.ndarray:
    """Border lengths by Cauchy-Crofton, pair by pair of pixels; number `count` is outside."""
    framed = np.pad(np.where(labels < 0, count, labels), 1, constant_values=count)
    length = np.zeros((count + 1, count + 1))
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y in range(framed.shape[0] - dy):
            for x in range(max(0, -dx), framed.shape[1] - max(0, dx)):
                a, b = framed[y, x], framed[y + dy, x + dx]
                if a != b:
                    length[a, b] += np.pi / 8 / np.hypot(dx, dy)
    return length + length.T


def slow_harmonics(labels: np.ndarray, index: int) -> np.ndarray:
    """Magnitudes of the spectrum of the farthest outline pixel in each direction."""
    mask = np.pad(labels == index, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    y, x = np.nonzero(mask[1:-1, 1:-1] & ~inner)
    ys, xs = np.nonzero(labels == index)
    profile = np.zeros(BINS)
    for dx, dy in zip(x - xs.mean(), y - ys.mean(), strict=True):
        if np.hypot(dx, dy) > 1e-6:
            direction = round(np.arctan2(dy, dx) / (2 * np.pi) * BINS) % BINS
            profile[direction] = max(profile[direction], np.hypot(dx, dy) + 0.5)
    spectrum = abs(np.fft.rfft(profile))
    return spectrum[1 : HARMONICS + 1] / max(spectrum[0], 1e-6)


def lineage(regions: Regions, index: int) -> list[int]:
    """Parents upwards."""
    parent = int(regions.parent[index])
    return [] if parent < 0 else [parent, *lineage(regions, parent)]


def touch(labels: np.ndarray, i: int, j: int) -> bool:
    """Whether a side of a pixel of i is a side of one of j."""
    pairs = ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    return any((((a == i) & (b == j)) | ((a == j) & (b == i))).any() for a, b in pairs)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_node_features_equal_slow_ones(seed):
    regions = random_regions(seed)
    graph = Complete()(regions)
    for name, values in slow_nodes(regions).items():
        np.testing.assert_allclose(feature(graph, name), values, atol=1e-5, err_msg=name)
    area = np.array([(regions.labels == i).sum() for i in range(regions.count)])
    perimeter = slow_lengths(regions.labels, regions.count).sum(axis=1)[:-1]
    np.testing.assert_allclose(feature(graph, "compactness"), np.minimum(4 * np.pi * area / perimeter**2, 1), rtol=1e-5)
    for index in range(regions.count):
        result = [feature(graph, name)[index] for name in HARMONIC]
        np.testing.assert_allclose(result, slow_harmonics(regions.labels, index), atol=1e-5)


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_edge_features_equal_slow_ones(seed):
    assert sorted(EDGES) == sorted(EDGE_FEATURES)
    regions = random_regions(seed)
    n, nodes, graph = regions.count, slow_nodes(regions), Complete()(regions)
    perimeter = slow_lengths(regions.labels, n).sum(axis=1)
    border = slow_lengths(fill(regions.labels), n)
    above = [lineage(regions, index) for index in range(n)]
    for i in range(n):
        expected = []
        for j in range(n):
            dx, dy = (nodes[c][j] - nodes[c][i] for c in ("cx", "cy"))
            wide, high = dx / nodes["width"][i], dy / nodes["height"][i]
            next_to = i != j and touch(fill(regions.labels), i, j)
            share = min(border[i, j] / min(perimeter[i], perimeter[j]), 1) if next_to else 0
            ratio = np.log(nodes["area"][j] / nodes["area"][i])
            own = wide / (1 + abs(wide)), high / (1 + abs(high))
            expected.append((dx, dy, *own, np.hypot(dx, dy), share, ratio, next_to, i in above[j], j in above[i]))
        for name, values in zip(EDGES, zip(*expected, strict=True), strict=True):
            np.testing.assert_allclose(feature(graph, name)[i], np.float64(values), atol=2e-5, err_msg=name)


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_features_stay_in_their_ranges(seed):
    graph = Complete()(random_regions(seed))
    for name in ("cx", "cy", "dx_own", "dy_own"):
        assert (abs(feature(graph, name)) < 1).all()
    for name in ("width", "height", "area", "sqrt_area", "compactness"):
        assert (feature(graph, name) > 0).all() and (feature(graph, name) <= 1).all()
    assert (feature(graph, "border") >= 0).all() and (feature(graph, "border") <= 1).all()
    for name in ("background", "adjacent", "contains", "inside"):
        assert set(np.unique(feature(graph, name))) <= {0, 1}
    for name, sign in (("dx", -1), ("dy", -1), ("log_size_ratio", -1), ("distance", 1), ("border", 1), ("adjacent", 1)):
        np.testing.assert_allclose(feature(graph, name), sign * feature(graph, name).T, atol=1e-6)
    np.testing.assert_array_equal(feature(graph, "contains"), feature(graph, "inside").T)
    assert not (feature(graph, "contains") * feature(graph, "inside")).any()
    for name in HARMONIC:
        assert (feature(graph, name) >= 0).all() and (feature(graph, name) <= 1 + 1e-6).all()


def expected_after(graph: Graph, turn: str) -> Graph:
    """Features of a graph after its sketch is turned."""
    nodes = dict(zip(NODE_FEATURES, graph.nodes.T, strict=True))
    edges = {name: graph.edges[..., i] for i, name in enumerate(EDGE_FEATURES)}
    if turn in ("transposed", "quarter-turned"):
        for a, b in (("cx", "cy"), ("width", "height")):
            nodes[a], nodes[b] = nodes[b], nodes[a]
        for a, b in (("dx", "dy"), ("dx_own", "dy_own")):
            edges[a], edges[b] = edges[b], edges[a]
        nodes["log_aspect"] = -nodes["log_aspect"]
    negated = {"mirrored": "x", "upside down": "y", "quarter-turned": "y", "transposed": ""}[turn]
    if negated:
        nodes[f"c{negated}"] = -nodes[f"c{negated}"]
        for name in (f"d{negated}", f"d{negated}_own"):
            edges[name] = -edges[name]
    return Graph(np.stack([*nodes.values()], -1), np.stack([*edges.values()], -1), graph.edge_mask)


@given(seed=SEEDS, turn=st.sampled_from(sorted(TURNS)))
@settings(max_examples=120, deadline=None)
def test_turning_the_sketch_turns_the_features(seed, turn):
    regions = random_regions(seed)
    expected, result = expected_after(Complete()(regions), turn), Complete()(turned(regions, turn))
    np.testing.assert_allclose(result.nodes, expected.nodes, atol=2e-5)
    np.testing.assert_allclose(result.edges, expected.edges, atol=2e-5)


def test_node_features_by_hand():
    labels = np.zeros((20, 40), np.int16)
    labels[5:15, 20:40] = 1
    graph = Complete()(nested(labels))
    for name, value in (
        *(("cx", 0.5), ("cy", 0), ("width", 0.5), ("height", 0.5), ("area", 0.25), ("sqrt_area", 0.5)),
        *(("log_aspect", np.log(2)), ("background", 0), ("depth", 0)),
    ):
        assert feature(graph, name)[1] == pytest.approx(value, abs=1e-6), name
    assert feature(graph, "background")[0] == 1 and feature(graph, "width")[0] == 1
    assert feature(graph, "cx")[0] == pytest.approx(-1 / 6, abs=1e-6)


def test_edge_features_by_hand():
    labels = np.zeros((32, 32), np.int16)
    labels[:, 8:] = 1
    edges = Complete()(nested(labels))
    assert feature(edges, "dx")[0, 1] == pytest.approx(1) and feature(edges, "dx")[1, 0] == pytest.approx(-1)
    assert feature(edges, "distance")[0, 1] == pytest.approx(1) and feature(edges, "dy")[0, 1] == 0
    assert feature(edges, "dx_own")[0, 1] == pytest.approx(4 / 5), "four half boxes away"
    assert feature(edges, "dx_own")[1, 0] == pytest.approx(-4 / 7), "1 / 0.75 half boxes away"
    assert feature(edges, "log_size_ratio")[0, 1] == pytest.approx(np.log(3))
    assert feature(edges, "border")[0, 1] == pytest.approx(32 / 80, rel=0.07)  # of 8 + 8 + 32 + 32
    assert feature(edges, "adjacent").tolist() == [[0, 1], [1, 0]]


def test_features_of_the_house():
    regions = Enclosed()(house())
    at, graph = house_places(regions), Complete()(regions)
    depth, contains = feature(graph, "depth"), feature(graph, "contains")
    assert [depth[at[name]] for name in ("outside", "frame", "wall", "pane")] == [0, 0.25, 0.5, 0.75]
    assert [contains[at[name], at["pane"]] for name in ("outside", "frame", "wall", "roof", "door")] == [1, 1, 1, 0, 0]
    assert feature(graph, "dy")[at["roof"], at["wall"]] > 0.5, "y points down"
    assert feature(graph, "border")[at["pane"], at["wall"]] > 0.9 > feature(graph, "border")[at["roof"], at["wall"]] > 0.2


def regions_of(*commands: tuple) -> Regions:
    return Enclosed()(figure(*commands))


def harmonics(regions: Regions) -> np.ndarray:
    return Complete()(regions).nodes[1, NODE_FEATURES.index("harmonic_1") :]


def test_compactness_distinguishes_discs_from_bars_at_any_angle():
    disc = regions_of((cv2.circle, (32, 32), 20, 255, 1))
    bar = regions_of((cv2.rectangle, (8, 28), (56, 36), 255, 1))
    slanted = regions_of((cv2.polylines, [np.array([(12, 46), (46, 12), (52, 18), (18, 52)])], True, 255, 1))
    values = [feature(Complete()(r), "compactness")[1] for r in (disc, bar, slanted)]
    assert values[0] > 0.93 and values[1] == pytest.approx(values[2], abs=0.1) and max(values[1:]) < 0.6


def test_harmonics_name_the_shape_and_not_its_turn():
    assert harmonics(Enclosed()(rings(20))).max() < 0.03
    for angle in (0, 15, 30, 75):
        bar, box = (
            regions_of((cv2.polylines, [cv2.boxPoints(((32, 32), sides, angle)).astype(np.int32)], True, 255, 1))
            for sides in ((44, 22), (34, 34))
        )
        assert harmonics(bar).argmax() == 1 and harmonics(bar)[1] > 0.12, "two-fold"
        assert harmonics(box).argmax() == 3 and 0.05 < harmonics(box)[3] < 0.15, "four-fold"


def test_regions_that_meet_at_a_corner_only_share_no_border():
    labels = np.kron(np.array([[0, 1], [1, 2]]), np.ones((8, 8))).astype(np.int16)
    graph = Complete()(nested(labels, background=1))
    assert feature(graph, "border")[0, 2] == 0 and feature(graph, "adjacent")[0].tolist() == [0, 1, 0]
