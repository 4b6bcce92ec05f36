"""Sketch fidelity against answers that can be worked out by hand."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from eval.metrics.sketch_fidelity import edge_curve, sketch_fidelity, sketch_fidelity_set, tolerance_px
from ragaf_exp.data.scenes import Scenes


def square(size: int = 64, at: int = 16, side: int = 32) -> np.ndarray:
    """One-pixel outline of a square as a sketch."""
    sketch = np.zeros((size, size), np.float32)
    cv2.rectangle(sketch, (at, at), (at + side - 1, at + side - 1), 1.0, 1)
    return sketch


def painted(size: int = 64, at: int = 16, side: int = 32) -> np.ndarray:
    """A filled red square on white paper."""
    image = np.full((size, size, 3), (240, 240, 230), np.uint8)
    image[at : at + side, at : at + side] = (220, 40, 40)
    return image


@pytest.mark.parametrize("size", [64, 256])
def test_a_painted_square_follows_its_outline(size):
    fidelity = sketch_fidelity(square(size, size // 4, size // 2), painted(size, size // 4, size // 2))
    assert fidelity.f1 == pytest.approx(1.0)
    assert fidelity.chamfer < 1.0 / size


def test_shift_beyond_the_tolerance_loses_the_sides_it_leaves():
    """Shifted right by 8 px, top and bottom still overlap by 24 of 32 px; the other sides are lost."""
    fidelity = sketch_fidelity(square(), painted(at=16)[:, np.r_[56:64, 0:56]])
    side, overlap = 32, 24
    expected = 2 * overlap / (4 * side - 4)
    assert fidelity.recall == pytest.approx(expected, abs=0.05)
    assert fidelity.precision == pytest.approx(expected, abs=0.05)


def test_f1_falls_and_chamfer_grows_with_the_shift():
    found = [sketch_fidelity(square(at=16 + s), painted()) for s in (0, 2, 5, 10)]
    assert found[0].f1 > 0.95 and all(a.f1 >= b.f1 for a, b in zip(found, found[1:], strict=False))
    assert all(a.chamfer < b.chamfer for a, b in zip(found, found[1:], strict=False))


def test_an_edge_of_colour_alone_is_an_edge():
    """Two colours of one lightness (L = 50 in CIELAB) have no edge in grey."""
    lab = np.full((64, 64, 3), (50.0, -40.0, 20.0), np.float32)
    lab[16:48, 16:48] = (50.0, 40.0, -20.0)
    image = np.rint(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).astype(np.uint8)
    assert sketch_fidelity(square(), image).f1 > 0.95


def test_faint_texture_has_no_edges():
    noise = np.random.default_rng(0).normal(0, 3, (128, 128, 1))
    image = np.clip(np.full((128, 128, 3), 160) + noise, 0, 255).astype(np.uint8)
    assert not edge_curve(image).mask.any()


def test_empty_curves():
    blank, paper = np.zeros((32, 32), np.float32), np.full((32, 32, 3), 200, np.uint8)
    both = sketch_fidelity(blank, paper)
    assert (both.precision, both.recall, both.f1, both.chamfer) == (1.0, 1.0, 1.0, 0.0)
    for one in (sketch_fidelity(blank, painted(32, 8, 16)), sketch_fidelity(square(32, 8, 16), paper)):
        assert (one.precision, one.recall, one.f1, one.chamfer) == (0.0, 0.0, 0.0, 1.0)


def test_tolerance_is_a_share_of_the_diagonal_but_at_least_a_pixel():
    assert tolerance_px((64, 64)) == 1.0
    assert tolerance_px((256, 256)) == pytest.approx(0.0075 * 256 * 2**0.5)
    assert sketch_fidelity(square(), painted()).tolerance == 1.0


def test_the_shuffled_figure_is_chance():
    sketches = [square(at=4, side=20), square(at=36, side=20), square(at=20, side=30)]
    images = [painted(at=4, side=20), painted(at=36, side=20), painted(at=20, side=30)]
    own, other = sketch_fidelity_set(sketches, images)
    assert min(f.f1 for f in own) > 0.95
    assert max(f.f1 for f in other) < 0.4
    assert sketch_fidelity_set(sketches[:1], images[:1])[1] == []


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="uint8"):
        edge_curve(painted().astype(np.float32))
    with pytest.raises(ValueError, match="outside"):
        sketch_fidelity(square() * 255, painted())
    with pytest.raises(ValueError, match="differ in size"):
        sketch_fidelity(square(32, 8, 8), painted())


def test_speed():
    """100 images a second at 256x256 are asked for on two free cores; half of that still catches a slow
    path.
    """
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (256, 256)) for _ in range(20)]
    start = time.process_time()
    for image in images:
        sketch_fidelity(square(256, 64, 128), image)
    assert len(images) / (time.process_time() - start) > 50


@pytest.mark.parametrize("size", [64, 128, 256])
def test_ceiling_on_ground_truth(size):
    """The drawing of a scene and the scene itself: what a perfect model can reach."""
    test = Scenes(size=size).split("test")
    items = [test[i] for i in range(40)]
    own, other = sketch_fidelity_set([i.drawing for i in items], [i.image for i in items])
    assert np.mean([f.f1 for f in own]) >= 0.96
    assert np.mean([f.f1 for f in other]) <= 0.25
