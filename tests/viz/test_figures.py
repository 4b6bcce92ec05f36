"""Grids, comparisons and attention figures as arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ragaf_exp.viz.attention import attention_figure, attention_frames
from ragaf_exp.viz.grids import comparison, grid

RED = np.full((16, 16, 3), (255, 0, 0), np.uint8)


def holds(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(-1).sum())


def test_grid_places_every_picture():
    sketch = np.zeros((16, 16), np.float32)
    sketch[8] = 1.0
    picture = grid([[RED, None, sketch], [RED]], ["one", "two", "three"], ["first row", "second row"], cell=32)
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert holds(picture, (255, 0, 0)) == 2 * 32 * 32
    assert holds(grid([[RED]], cell=32), (255, 0, 0)) == 32 * 32


def test_grid_keeps_aspect_and_survives_odd_input():
    wide = np.full((10, 40, 3), (0, 0, 255), np.uint8)
    assert holds(grid([[wide]], cell=40), (0, 0, 255)) == 10 * 40
    assert grid([]).size and grid([[]], rows=["a" * 500]).size


def test_comparison_has_room_for_the_caption():
    pictures = {"sketch": RED, "stage 1": RED, "stage 2": None}
    assert comparison(pictures, "a red square " * 5).shape[0] > comparison(pictures).shape[0]


@pytest.mark.parametrize(("regions", "words"), [(5, 12), (1, 1), (0, 4), (3, 0), (24, 77)])
def test_attention_figure_of_any_size(regions, words):
    attention = np.random.default_rng(0).random((regions, words)) ** 8
    labels = np.arange(64).reshape(8, 8) % max(regions, 1) - (regions == 0)
    picture = attention_figure(["$\\bad{"] * words, attention, RED, labels, title="costs $5 & more_")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 1
    assert (picture == attention_figure(["$\\bad{"] * words, attention, RED, labels, "costs $5 & more_")).all()


def test_words_must_fit_the_attention():
    with pytest.raises(ValueError, match="merge sub-tokens"):
        attention_figure(["a"], np.ones((2, 3)), RED)


def test_pyplot_stays_out():
    code = "import sys, ragaf_exp.viz.grids; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_frames_of_an_animation_are_the_figures_of_each_attention():
    rng, words = np.random.default_rng(0), ["red", "circle", "left", "of", "blue"]
    overlay, labels = rng.integers(0, 256, (96, 96, 3), np.uint8), rng.integers(-1, 4, (48, 48))
    frames = [(f"timestep {t}: a caption", rng.dirichlet(np.full(len(words), 0.5), 4)) for t in (999, 500, 1)]
    drawn = list(attention_frames(words, frames, overlay, labels, top=0.9))
    assert all(np.array_equal(image, attention_figure(words, attention, overlay, labels, title, 0.9))
               for image, (title, attention) in zip(drawn, frames, strict=True))  # fmt: skip
    assert not np.array_equal(drawn[0], drawn[1])
