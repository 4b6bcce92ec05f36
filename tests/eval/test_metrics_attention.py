"""Attention metrics on perfect, uniform, shuffled and wrong maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eval import scoring
from eval.metrics.attention import (
    PhraseAttention,
    RegionText,
    attention_values,
    normalised_entropy,
    own_scores,
    region_text,
    shuffled_scores,
    uniform_scores,
)
from eval.registry import ATTENTION, in_group
from ragaf_exp.core.types import Item, SceneObject

QUARTERS = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.int16), 8, 0), 8, 1)
LABELS = QUARTERS.copy()
LABELS[7:9] = -1  # a stroke across


def quarter(region: int) -> np.ndarray:
    return region == QUARTERS


def item(attention: np.ndarray, phrases: tuple[int, ...] = (0, 1, 2, 3)) -> RegionText:
    """An item whose k-th phrase is the k-th token and the quarter that is named for it."""
    return region_text(attention, LABELS, [quarter(r) for r in phrases], [[k] for k in range(len(phrases))])


def phrase_attention(attention: np.ndarray, labels: np.ndarray, mask: np.ndarray, tokens: Sequence[int]) -> PhraseAttention:
    """Scores of an item with one phrase."""
    (scores,) = own_scores(region_text(attention, labels, [mask], [tokens]))
    return scores


def mean(values: list) -> float:
    return float(np.mean([v for phrases in values for v in phrases]))


# --- one phrase


def test_a_perfect_map_scores_one():
    attention = np.eye(4)
    for region in range(4):
        scores = phrase_attention(attention, LABELS, quarter(region), [region])
        assert (scores.pointing, scores.iou) == (1.0, 1.0)


def test_a_wrong_map_scores_zero():
    scores = phrase_attention(np.eye(4), LABELS, quarter(1), [2])
    assert (scores.pointing, scores.iou) == (0.0, 0.0)


def test_a_uniform_map_scores_chance():
    scores = phrase_attention(np.full((4, 6), 1 / 6), LABELS, quarter(1), [2, 3])
    assert scores.pointing == pytest.approx(0.25)
    assert scores.iou == pytest.approx(0.25)


def test_iou_counts_pixels():
    """The map covers two quarters; the object is one of them and half of a third."""
    attention = np.array([[0.9], [0.6], [0.4], [0.0]])
    mask = quarter(0) | (quarter(2) & (np.arange(16) < 4)[None])
    scores = phrase_attention(attention, LABELS, mask, [0])
    region = 7 * 8  # a quarter without its share of the stroke
    assert scores.iou == pytest.approx(region / (2 * region + region / 2))
    assert scores.pointing == 1.0


def test_tokens_of_a_phrase_add_up():
    attention = np.array([[0.4, 0.0, 0.6], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert phrase_attention(attention, LABELS, quarter(0), [0]).pointing == 1.0
    assert phrase_attention(attention, LABELS, quarter(1), range(2)).pointing == 1.0


def test_nothing_to_find():
    none = np.full((16, 16), -1, np.int16)
    assert phrase_attention(np.zeros((0, 3)), none, quarter(0), [0]).pointing == 0.0
    assert phrase_attention(np.zeros((4, 3)), LABELS, quarter(0), [0]).iou == 0.0
    assert phrase_attention(np.eye(4), LABELS, np.zeros((16, 16), bool), [0]).iou == 0.0
    assert phrase_attention(np.eye(4), LABELS, quarter(0), []).pointing == 0.0


def test_padding_takes_no_part():
    """Rows without pixels, as a batch is padded with, don't count, whatever they attend to."""
    padded = np.concatenate([np.eye(4) * 0.5, np.ones((3, 4))])
    scores = phrase_attention(padded, LABELS, quarter(2), [2])
    assert (scores.pointing, scores.iou) == (1.0, 1.0)
    values = attention_values([item(padded)])
    assert values["pointing_accuracy_uniform"] == [[0.25] * 4] and values["attention_entropy"] == [0.0]


@given(seed=st.integers(0, 2**32 - 1), regions=st.integers(1, 6), tokens=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_scores_by_counts_are_those_by_pixels(seed, regions, tokens):
    """Regions' counts of pixels stand for the map of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, regions, (9, 7)).astype(np.int16)
    attention, mask = rng.random((regions, tokens)), rng.random((9, 7)) < 0.4
    scores = phrase_attention(attention, labels, mask, [0])
    score = np.where(np.isin(np.arange(regions), labels), attention[:, 0], 0.0)
    if not (labels >= 0).any():
        assert (scores.pointing, scores.iou) == (0.0, 0.0)
        return
    first, *second = np.sort(score)[::-1][:2]
    assume(not second or first - second[0] > 1e-4)  # ties share the first place
    attended = (labels >= 0) & (score[labels] >= 0.5 * score.max())
    wanted = mask & (labels >= 0)
    assert scores.iou == pytest.approx((attended & wanted).sum() / (attended | wanted).sum())
    assert scores.pointing == float(mask[labels == score.argmax()].mean() > 0.5)


# --- compared with chance


def test_a_perfect_map_compared_with_chance():
    """Objects in another quarter in each item: one item's map scores nothing on another."""
    turns = [np.roll(range(4), k) for k in range(4)]  # the k-th item's regions, in the order of its phrases
    values = attention_values([item(np.eye(4)[:, turn], tuple(turn)) for turn in turns])
    assert set(values) == set(in_group(ATTENTION, chance=True)) - {"pointing_accuracy_repeated"}
    assert mean(values["pointing_accuracy"]) == mean(values["attention_iou"]) == 1.0
    assert mean(values["pointing_accuracy_uniform"]) == mean(values["attention_iou_uniform"]) == 0.25
    assert mean(values["pointing_accuracy_shuffled"]) == mean(values["attention_iou_shuffled"]) == 0.0
    assert values["attention_entropy"] == [0.0] * 4


def test_a_uniform_map_is_chance():
    values = attention_values([item(np.full((4, 4), 0.25)) for _ in range(3)])
    for name in ("pointing_accuracy", "attention_iou"):
        assert values[name] == values[f"{name}_uniform"] == values[f"{name}_shuffled"] == [[0.25] * 4] * 3
    assert values["attention_entropy"] == pytest.approx([1.0] * 3)


def test_a_habit_shows_as_chance():
    """A map that gives the k-th phrase the k-th region, whatever the item: right where that happens to be right, and
    the shuffled figure says that no more than this is known.
    """
    values = attention_values([item(np.eye(4)) for _ in range(5)])
    assert mean(values["pointing_accuracy"]) == mean(values["pointing_accuracy_shuffled"]) == 1.0


def test_the_seed_decides_which_map_is_lent_and_no_item_borrows_its_own():
    rng = np.random.default_rng(0)
    items = [item(rng.random((4, 4))) for _ in range(6)]
    first, again, other = (attention_values(items, seed)["attention_iou_shuffled"] for seed in (0, 0, 1))
    assert first == again != other
    lone = [item(np.eye(4)), item(np.zeros((4, 4)))]  # each borrows the other's
    assert attention_values(lone)["pointing_accuracy_shuffled"] == [[0.0] * 4, [1.0] * 4]


def test_maps_of_other_sizes_are_lent_by_their_order():
    two = region_text(np.eye(2), np.where(QUARTERS % 2, 1, 0).astype(np.int16), [QUARTERS % 2 == 0], [[0]])
    four = item(np.eye(4))
    assert [p.iou for p in shuffled_scores(four, two)] == [0.5, 0.5, 0.0, 0.0]  # its one phrase goes to regions 0 and 1
    assert [p.pointing for p in shuffled_scores(two, four)] == [1.0]
    assert [p.pointing for p in uniform_scores(two)] == [0.5]
    none = region_text(np.zeros((0, 2)), np.full((4, 4), -1), [np.ones((4, 4), bool)], [[0]])
    assert [p.iou for p in shuffled_scores(four, none)] == [0.0] * 4
    assert [p.iou for p in shuffled_scores(none, four)] == [0.0]


def test_items_without_phrases_score_none():
    bare = region_text(np.eye(4), LABELS, [], [])
    values = attention_values([bare, item(np.eye(4)), bare])
    assert values["pointing_accuracy"] == [None, [1.0] * 4, None] and values["attention_entropy"] == [None, 0.0, None]
    assert attention_values([bare]) == attention_values([]) == {}
    assert "attention_iou_shuffled" not in attention_values([item(np.eye(4))])


# --- entropy and wrong input


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
    with pytest.raises(ValueError, match="not negative"):
        region_text(np.full((4, 4), np.nan), LABELS, [], [])
    with pytest.raises(ValueError, match="region 3"):
        phrase_attention(np.eye(2), LABELS, quarter(0), [0])
    with pytest.raises(ValueError, match="outside the 4 columns"):
        phrase_attention(np.eye(4), LABELS, quarter(0), [4])
    with pytest.raises(ValueError, match="1 masks for 2 phrases"):
        region_text(np.eye(4), LABELS, [quarter(0)], [[0], [1]])
    with pytest.raises(ValueError, match="must both be"):
        phrase_attention(np.eye(4), LABELS, quarter(0)[:8], [0])


def test_repeated_shapes_have_a_separate_figure():
    objects = [SceneObject(k + 1, "star", "red", "", (2 * k, 2 * k + 1), repeated=k < 2) for k in range(3)]
    object_map = np.kron([[1, 2], [3, 0]], np.ones((4, 4))).astype(np.uint8)
    item = Item("a", np.zeros((8, 8, 3), np.uint8), "a b c", objects=tuple(objects), object_map=object_map)
    regions = SimpleNamespace(labels=object_map.astype(np.int16), count=4)
    example = SimpleNamespace(item=item, regions=regions)
    right_but_the_second = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1.0]])
    spans = [(0, 1), (2, 3), (4, 5)]
    values = scoring.attention_values([right_but_the_second], [example], lambda caption: spans, seed=0)
    assert values["pointing_accuracy"][0][::2] == [1.0, 1.0] and values["pointing_accuracy"][0][1] < 1
    assert values["pointing_accuracy_repeated"] == [[1.0, values["pointing_accuracy"][0][1], None]]
    alone = replace(item, objects=tuple(replace(o, repeated=False) for o in objects))
    example = SimpleNamespace(item=alone, regions=regions)
    values = scoring.attention_values([right_but_the_second], [example], lambda caption: spans, seed=0)
    assert "pointing_accuracy_repeated" not in values
