"""Odd input: tiny, huge, blank, black, noise, other types and layouts."""

import json
import subprocess
import sys

import numpy as np
import pytest
from drawings import house

from ragaf_exp.graph import Hybrid
from ragaf_exp.regions import Enclosed
from ragaf_exp.regions.enclosed import LARGEST
from ragaf_exp.regions.gaps import CLOSINGS

SHAPES = [(1, 1), (1, 2), (1, 9), (9, 1), (2, 2), (1, 5000), (5000, 1), (64, 64), (40, 64)]
HUGE = """
import json, resource, time
import numpy as np
from ragaf_exp.graph import Hybrid
from ragaf_exp.regions import Enclosed

def draw(kind, sketch):
    sketch[:] = kind == "black"
    if kind == "grid":
        sketch[:: len(sketch) // 50] = sketch[:, :: len(sketch) // 50] = 1
    if kind == "noise":
        for row in range(len(sketch)):
            sketch[row] = np.random.default_rng(row).random(len(sketch), np.float32) < 0.02
    if kind == "lines":
        sketch[::7] = 1

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def measure(kind, side):
    sketch = np.empty((side, side), np.float32)
    draw(kind, sketch)
    before, start = peak(), time.process_time()
    regions = Enclosed()(sketch)
    graph = Hybrid()(regions)
    seconds, finite = time.process_time() - start, np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()
    return {"seconds": seconds, "mib": peak() - before, "count": regions.count, "shape": regions.labels.shape,
            "finite": bool(finite)}

measure("grid", 100), measure("grid", 1600)  # compiled, and larger than what is worked on whole
print(json.dumps({kind: measure(kind, 8000) for kind in ("grid", "noise", "lines", "blank", "black")}))
"""


@pytest.mark.long
def test_huge_sketches_take_two_seconds_and_a_gibibyte_at_most():
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert sum(result["mib"] for result in rows.values()) < 1024, rows  # the peak never falls: what each adds to it
    for kind, result in rows.items():
        assert result["seconds"] < 2 and result["shape"] == [8000, 8000] and result["finite"], (kind, result)
        assert 0 <= result["count"] <= 16 and (result["count"] == 0) == (kind == "black"), (kind, result)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_sketches_beyond_the_longest_keep_their_regions(factor):
    enlarged = house().repeat(24 * factor, 0).repeat(24 * factor, 1)  # 1536 pixels is worked on whole
    assert max(enlarged.shape) ** 2 == LARGEST * factor**2
    regions, small = Enclosed()(enlarged), Enclosed()(house())
    assert regions.labels.shape == enlarged.shape and regions.count == small.count == 6
    assert regions.parent.tolist() == small.parent.tolist()
    check_residual_shapes = regions.labels[12 * factor :: 24 * factor, 12 * factor :: 24 * factor] == small.labels
    assert check_residual_shapes[house() == 0].mean() > 0.99


@pytest.mark.parametrize("shape", [(8000, 30), (30, 8000), (1601, 1537), (1537, 1)])
def test_sides_that_no_factor_divides(shape):
    sketch = np.zeros(shape, np.float32)
    sketch[shape[0] // 2] = 1
    for strokes in ("nearest", "none"):
        regions = Enclosed(strokes=strokes)(sketch)
        assert regions.labels.shape == shape and regions.count == 2
        assert regions.labels[0, 0] != regions.labels[-1, -1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("closing", CLOSINGS)
def test_blank_and_black(shape, closing):
    finder = Enclosed(closing=closing)
    blank, black = finder(np.zeros(shape, np.float32)), finder(np.ones(shape, np.float32))
    assert (blank.count, blank.background, blank.labels.max(), blank.labels.min()) == (1, 0, 0, 0)
    assert (black.count, black.background, black.labels.max(), black.labels.min()) == (0, -1, -1, -1)
    assert blank.labels.shape == black.labels.shape == shape
    assert (blank.parent.tolist(), blank.depth.tolist()) == ([-1], [0]) and len(black.parent) == len(black.depth) == 0


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if max(shape) > 1])
def test_one_stroke_pixel_and_one_open_pixel(shape):
    stroke = np.zeros(shape, np.float32)
    stroke[0, 0] = 1
    hole = Enclosed()(1 - stroke)
    assert hole.count == 1 and hole.background == 0 and (hole.labels == 0).all()
    for regions in (Enclosed()(stroke), hole):
        graph = Hybrid()(regions)
        assert regions.labels.shape == shape and np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("closing", CLOSINGS)
@pytest.mark.parametrize("gap", [0, 0.03])
def test_thousands_of_specks(density, closing, gap):
    noise = (np.random.default_rng(1).random((128, 150)) < density).astype(np.float32)
    for most in (16, 400):
        regions = Enclosed(most, 2 / most**2, gap, closing)(noise)
        assert 1 <= regions.count == len(np.unique(regions.labels)) <= most and (regions.labels >= 0).all()
        graph = Hybrid()(regions)
        assert np.isfinite(graph.nodes).all() and np.isfinite(graph.edges).all()


def test_a_chequerboard_has_as_many_regions_as_are_looked_at():
    board = (np.indices((80, 80)).sum(axis=0) % 2).astype(np.float32)  # 3,200 areas of one pixel
    for most in (1, 7, 1024):
        regions = Enclosed(most, 0.0, 0.0)(board)
        assert 1 <= regions.count <= most and (regions.labels >= 0).all()


@pytest.mark.parametrize("change", [
    lambda s: s.astype(np.float64), lambda s: s.astype(np.float16), lambda s: s > 0, lambda s: s.astype(np.uint8),
    lambda s: s.astype(np.int64), np.asfortranarray, lambda s: np.repeat(s, 2, axis=1)[:, ::2], lambda s: s[::-1][::-1],
    lambda s: np.stack([s, s], axis=-1)[..., 0], lambda s: np.frombuffer(s.tobytes(), np.float32).reshape(s.shape),
])  # fmt: skip
def test_types_and_layouts_change_nothing(change):
    sketch, other = house(), change(house())
    before = other.copy()
    one, two = Enclosed()(sketch), Enclosed()(other)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(other, before, "the sketch given is left as it is")
    assert one.parent.tolist() == two.parent.tolist()


def test_the_same_sketch_gives_the_same_bytes():
    noise = np.random.default_rng(0).random((90, 70)).astype(np.float32)
    one, two = Enclosed()(noise), Enclosed()(noise.copy())
    assert one.labels.tobytes() == two.labels.tobytes()
    assert Hybrid()(one).edges.tobytes() == Hybrid()(two).edges.tobytes()
