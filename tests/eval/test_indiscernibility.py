"""U-IDS and P-IDS: the classifier, the two scores of sets, and their figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.features import load
from eval.features.indiscernible import indiscernible_figures
from eval.images import ImageSet
from eval.metrics.indiscernibility import COST, errors, preferred, realism
from eval.networks import Networks
from ragaf_exp.config.schema import Eval


def scores(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """U-IDS and P-IDS of features."""
    decisions = realism(real, generated)
    return float(errors(*decisions).mean()), float(preferred(*decisions).mean())


def cloud(seed: int, count: int = 60, dim: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim))


@given(st.integers(0, 1000), st.integers(2, 80), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_identical_sets_are_indiscernible(seed, count, dim):
    x = cloud(seed, count, dim)
    assert scores(x, x) == (0.5, 0.5)
    assert scores(x, x[::-1])[0] == 0.5


@given(st.integers(0, 1000), st.floats(30, 1000), st.booleans())
@settings(max_examples=20, deadline=None)
def test_far_sets_score_zero(seed, distance, above):
    x = cloud(seed)
    assert scores(x, x + (distance if above else -distance)) == (0.0, 0.0)


def test_near_sets_lie_in_between_and_fall_with_their_distance():
    values = [scores(cloud(0, 400), cloud(1, 400) + shift) for shift in (0.0, 0.5, 1.0, 2.0)]
    for score in zip(*values, strict=True):
        assert 0.4 < score[0] < 0.56 and list(score) == sorted(score, reverse=True) and score[-1] < 0.1


def test_two_points_have_the_fit_of_the_closed_form():
    """With x = +-a: w^2 / 2 + 2 C (1 - a w)^2 is least at w = 4 C a / (1 + 4 C a^2)."""
    a = 0.7
    real, generated = realism(np.array([[a]]), np.array([[-a]]))
    weight = 4 * COST * a / (1 + 4 * COST * a**2)
    np.testing.assert_allclose((real[0], generated[0]), (a * weight, -a * weight), rtol=1e-4)


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.full((4, 2), np.nan), np.zeros(4)])
def test_other_shapes_and_nan_are_refused(bad):
    with pytest.raises(ValueError, match="features"):
        realism(np.zeros((4, 2)), bad)


# --- figures of pictures


def pictures(count: int, seed: int, level: int = 128) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(level - 60, level + 60, (16, 16, 3)).astype(np.uint8) for _ in range(count)]


def test_figures_of_pairs_and_of_other_sets(tmp_path):
    network = load("embedded", device="cpu")
    keys = [str(i) for i in range(8)]
    first = ImageSet.arrays(pictures(8, 0), keys, "samples")
    turned = ImageSet.arrays(pictures(8, 0)[::-1], keys[::-1], "the same, in another order")
    same = indiscernible_figures(first, turned, network, tmp_path)
    assert same.keys() == {"u_ids_embedded", "p_ids_embedded"}
    assert all(entry["value"] == 0.5 and entry["n"] == 8 and "separate" in entry["warning"] for entry in same.values())
    others = ImageSet.arrays(pictures(12, 1, level=70), name="others")
    assert indiscernible_figures(first, others, network, tmp_path).keys() == {"u_ids_embedded"}, "these have no pairs"


def test_the_evaluation_measures_them_where_they_are_requested():
    keys = [str(i) for i in range(8)]
    first, second = (ImageSet.arrays(pictures(8, seed), keys, f"set {seed}") for seed in (0, 1))
    networks = Networks(Eval(metrics=["u_ids", "u_ids_embedded", "p_ids_embedded"]), "cpu", None)
    scores = networks.measure(first, second)
    assert scores.metrics.keys() == {"u_ids_embedded", "p_ids_embedded"}
    assert "inception" in scores.unavailable["u_ids"], "its weights are not given"
    unpaired = networks.measure(first, ImageSet.arrays(pictures(8, 1), name="others"))
    assert "pairs" in unpaired.unavailable["p_ids_embedded"] and "u_ids_embedded" in unpaired.metrics
