"""Attention metrics on perfect, uniform and wrong maps."""

from __future__ import annotations

import numpy as np
import pytest

from eval.metrics.attention import normalised_entropy, phrase_attention

LABELS = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.int16), 8, 0), 8, 1)  # four quarters
LABELS[7:9] = -1  # a stroke across


def quarter(region: int) -> np.ndarray:
    full = np.repeat(np.repeat(np.array([[0, 1], [2, 3]]), 8, 0), 8, 1)
    return full == region


def test_a_perfect_map_scores_one():
    attention = np.eye(4)
    for region in range(4):
        found = phrase_attention(attention, LABELS, quarter(region), [region])
        assert (found.pointing, found.iou) == (1.0, 1.0)


def test_a_wrong_map_scores_zero():
    found = phrase_attention(np.eye(4), LABELS, quarter(1), [2])
    assert (found.pointing, found.iou) == (0.0, 0.0)


def test_a_uniform_map_scores_chance():
    found = phrase_attention(np.full((4, 6), 1 / 6), LABELS, quarter(1), [2, 3])
    assert found.pointing == pytest.approx(0.25)
    assert found.iou == pytest.approx(0.25)


def test_tokens_of_a_phrase_add_up():
    attention = np.array([[0.4, 0.0, 0.6], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert phrase_attention(attention, LABELS, quarter(0), [0]).pointing == 1.0
    assert phrase_attention(attention, LABELS, quarter(1), slice(0, 2)).pointing == 1.0


def test_nothing_to_find():
    none = np.full((16, 16), -1, np.int16)
    assert phrase_attention(np.zeros((0, 3)), none, quarter(0), [0]).pointing == 0.0
    assert phrase_attention(np.zeros((4, 3)), LABELS, quarter(0), [0]).iou == 0.0
    assert phrase_attention(np.eye(4), LABELS, np.zeros((16, 16), bool), [0]).iou == 0.0


def test_entropy():
    assert normalised_entropy(np.eye(4)) == pytest.approx(0.0)
    assert normalised_entropy(np.full((3, 5), 0.2)) == pytest.approx(1.0)
    assert normalised_entropy(np.array([[0.5, 0.5, 0.0, 0.0]])) == pytest.approx(0.5)
    assert normalised_entropy(np.zeros((2, 4))) == pytest.approx(1.0)
    assert normalised_entropy(np.zeros((0, 4))) == 1.0
    assert normalised_entropy(np.ones((2, 1))) == 0.0


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="not negative"):
        phrase_attention(-np.eye(4), LABELS, quarter(0), [0])
    with pytest.raises(ValueError, match="region 3"):
        phrase_attention(np.eye(2), LABELS, quarter(0), [0])
