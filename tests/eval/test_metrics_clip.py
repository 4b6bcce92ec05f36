"""CLIP's scores on embeddings with known answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics.clip import clip_scores, directional_scores, other_captions, rank_regions, unit_cosines

RNG = np.random.default_rng(0)


def at_angle(degrees: list[float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_known_angles():
    scores = clip_scores(at_angle([0, 60, 90, 180]), 7 * at_angle([0, 0, 0, 0]))
    assert scores == pytest.approx([100, 50, 0, 0]), "clipped at 0 pair by pair, whatever the lengths"


def test_a_row_of_zeros_is_like_nothing():
    assert clip_scores(np.zeros((1, 2)), at_angle([0]))[0] == 0.0


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_scores_lie_in_range_and_do_not_depend_on_lengths(seed, scale):
    images, texts = np.random.default_rng(seed).normal(size=(2, 6, 5))
    scores = clip_scores(images, texts)
    assert (scores >= 0).all() and (scores <= 100).all()
    np.testing.assert_allclose(clip_scores(images * scale, texts), scores, atol=1e-9)
    np.testing.assert_allclose(clip_scores(images, images), 100)


def test_direction_of_an_edit():
    before, after = at_angle([0, 0, 0, 0]), at_angle([90, -90, 0, 90])
    old, new = at_angle([0, 0, 0, 90]), at_angle([90, 90, 90, 0])
    scores = directional_scores(before, after, old, new)
    assert scores == pytest.approx([1, 0, 0, -1]), "along, across, not moved, against"


def test_direction_is_that_of_instruct_pix2pix():
    before, after, old, new = RNG.normal(size=(4, 20, 8))
    unit = [torch.nn.functional.normalize(torch.from_numpy(x), dim=1) for x in (before, after, old, new)]
    wanted = torch.nn.functional.cosine_similarity(unit[1] - unit[0], unit[3] - unit[2])
    scores = directional_scores(before, after, old, new)
    np.testing.assert_allclose(scores, wanted.numpy(), atol=1e-9)
    np.testing.assert_allclose(directional_scores(after, before, old, new), -scores, atol=1e-9)


def test_rounding_is_no_direction():
    before = RNG.normal(size=(50, 512)).astype(np.float32)
    shaken = before * (1 + RNG.uniform(-1e-7, 1e-7, before.shape)).astype(np.float32)
    assert (directional_scores(before, shaken, *RNG.normal(size=(2, 50, 512))) == 0).all()


def test_an_edit_that_names_nothing_is_refused():
    images, text = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))
    with pytest.raises(ValueError, match="1 of 3 captions are the same"):
        directional_scores(images, images, text, text + np.eye(3, 4)[[0, 1, 1]] * np.array([[1], [1], [0]]))


CAPTIONS = st.lists(st.sampled_from(["a red star", "A  red star", "a dog", "two dogs", "a cat", "three cats"]), max_size=12)


@given(CAPTIONS, st.integers(0, 99))
def test_another_caption_reads_differently(captions, seed):
    others = other_captions(captions, seed)
    plain = [" ".join(caption.lower().split()) for caption in captions]
    assert all(plain[j] != plain[i] for i, j in enumerate(others) if j >= 0)
    used = [j for j in others if j >= 0]
    assert len(set(used)) == len(used), "no caption twice"
    most = max(Counter(plain).values(), default=0)
    assert (others < 0).sum() == max(0, 2 * most - len(captions)), "as few as can be are left without"
    assert (others == other_captions(captions, seed)).all()


def test_other_captions_depend_on_the_seed_and_every_one_is_used():
    captions = [str(i) for i in range(20)]
    draws = np.stack([other_captions(captions, seed) for seed in range(400)])
    assert len({tuple(row) for row in draws}) == 400
    reached = np.bincount(draws[:, 0], minlength=20)
    assert reached[0] == 0 and reached[1:].min() >= 5, "any other item's caption may be the one"


def test_regions_rank_their_own_phrase():
    similarity = np.array([[0.3, 0.1, 0.2], [0.3, 0.1, 0.2], [0.0, 0.0, 0.9]])
    assert rank_regions(similarity, [0, 1, 2]) == [1.0, 0.0, 1.0]
    assert rank_regions(similarity, [0, -1, -1]) == [1.0, None, None]
    assert rank_regions(similarity[:, :1], [0, 0, 0]) == [None, None, None], "a single phrase has no rival"
    assert rank_regions(np.zeros((0, 2)), []) == []


@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_equal_scores_of_all_phrases_give_chance(phrases, regions, seed):
    rng = np.random.default_rng(seed)
    owners = rng.integers(phrases, size=regions)
    assert rank_regions(np.full((regions, phrases), 0.2), owners) == pytest.approx([1 / phrases] * regions)
    always = np.zeros((phrases, phrases))
    always[:, rng.integers(phrases)] = 1  # every region takes the same phrase
    assert np.mean(rank_regions(always, range(phrases))) == pytest.approx(1 / phrases)


def test_order_of_phrases_does_not_matter():
    similarity, owners = RNG.normal(size=(8, 5)), RNG.integers(5, size=8)
    order = RNG.permutation(5)
    assert rank_regions(similarity[:, order], np.argsort(order)[owners]) == rank_regions(similarity, owners)


def test_cosines_of_all_pairs():
    cosines = unit_cosines(at_angle([0, 90]), 3 * at_angle([0, 60, 180]))
    assert cosines == pytest.approx(np.array([[1, 0.5, -1], [0, np.sqrt(0.75), 0]]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clip_scores(np.ones((2, 3)), np.ones((3, 3))), "one shape"),
        (lambda: clip_scores(np.ones(3), np.ones(3)), r"\(n, D\)"),
        (lambda: clip_scores(np.full((2, 3), np.nan), np.ones((2, 3))), "2 of 2 rows of images"),
        (lambda: directional_scores(*np.full((4, 1, 3), np.inf)), "NaN or infinite"),
        (lambda: rank_regions(np.ones((2, 3)), [0]), r"\(R, P\)"),
        (lambda: rank_regions(np.ones((1, 3)), [3]), "there are 3 phrases"),
        (lambda: rank_regions(np.ones((1, 3)), [-2]), "there are 3 phrases"),
        (lambda: rank_regions(np.array([[np.nan, 1.0]]), [0]), "NaN"),
    ],
)
def test_wrong_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()
