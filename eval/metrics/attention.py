"""Region-to-text attention against the caption: pointing game, IoU and entropy, with chance levels.

A region's score for a phrase ("a striped blue star") is its attention to the phrase's tokens, summed. Strokes belong to
no region and are ignored. Regions without pixels, such as a batch's padding, are ignored too.

There are two chance levels. One is a uniform map. The other, shuffled, is another item's map, read at the same positions
in the order of regions and of phrases: its score comes from regularities that hold for any item (the background is
ignored, the first phrase belongs to the leftmost region) and not from this item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLD = 0.5  # of the largest score: regions from there on belong to a map's prediction
TIED = 1e-5  # relative: scores that differ by less share the first rank


@dataclass(frozen=True)
class PhraseAttention:
    """How well the regions' attention localises one phrase."""

    pointing: float  # 1 if the region with the most attention lies mostly on the object; ties share the point
    iou: float  # of the pixels with at least half the largest score and the object's pixels


@dataclass(frozen=True)
class RegionText:
    """One item's attention and the ground truth of its phrases, in pixels. K phrases, N regions, T tokens."""

    attention: np.ndarray  # (N,T) to the caption's own tokens, not negative
    tokens: tuple[tuple[int, ...], ...]  # K: columns of each phrase
    pixels: np.ndarray  # (N,) number of pixels of each region
    overlaps: np.ndarray  # (K,N) those that lie on each phrase's object

    def scores(self) -> np.ndarray:
        """(K,N) attention of each region to each phrase."""
        return np.array([self.attention[:, list(t)].sum(1) for t in self.tokens]).reshape(self.overlaps.shape)


def region_text(
    attention: np.ndarray, labels: np.ndarray, masks: Sequence[np.ndarray], tokens: Sequence[Sequence[int]]
) -> RegionText:
    """The attention and the ground truth of one item.

    Args:
        attention: (N,T), not negative.
        labels: (H,W) row of each pixel's region, or -1.
        masks: (H,W) bool of each phrase's object.
        tokens: Columns of each phrase's tokens.

    Raises:
        ValueError: If shapes, signs or indices don't fit.
    """
    if len(masks) != len(tokens):
        raise ValueError(f"{len(masks)} masks for {len(tokens)} phrases")
    _checked(attention, labels, masks)
    columns = attention.shape[1]
    if any(not 0 <= i < columns for phrase in tokens for i in phrase):
        raise ValueError(f"a phrase names a token outside the {columns} columns of attention")
    inside = labels >= 0
    pixels = np.bincount(labels[inside], minlength=len(attention))
    overlaps = [np.bincount(labels[inside & mask.astype(bool)], minlength=len(attention)) for mask in masks]
    counts = np.array(overlaps, np.int64).reshape(len(masks), len(attention))
    return RegionText(attention, tuple(map(tuple, tokens)), pixels, counts)


def score_phrase(scores: np.ndarray, pixels: np.ndarray, overlap: np.ndarray) -> PhraseAttention:
    """Pointing accuracy and IoU of one phrase.

    Regions that tie for the most attention share the point, so a uniform map scores the share of regions that lie on the
    object, which is chance. Both values are 0 without regions and without attention to the phrase.

    Args:
        scores: (N,) attention of each region to the phrase.
        pixels: (N,) pixels of each region.
        overlap: (N,) pixels of each region on the phrase's object.
    """
    scores = np.where(pixels > 0, scores, 0.0)
    best = scores.max(initial=0.0)
    if best <= 0.0:
        return PhraseAttention(0.0, 0.0)
    first = np.isclose(scores, best, rtol=TIED, atol=0.0)
    pointing = float((overlap[first] > 0.5 * pixels[first]).mean())
    selected = (scores >= THRESHOLD * best * (1 - TIED)) & (pixels > 0)
    shared = overlap[selected].sum()
    return PhraseAttention(pointing, float(shared / (pixels[selected].sum() + overlap.sum() - shared)))


def own_scores(item: RegionText) -> list[PhraseAttention]:
    """Scores of each phrase with the item's own map."""
    return [score_phrase(s, item.pixels, o) for s, o in zip(item.scores(), item.overlaps, strict=True)]


def uniform_scores(item: RegionText) -> list[PhraseAttention]:
    """Scores of each phrase with a uniform map."""
    return [score_phrase(np.ones(len(item.pixels)), item.pixels, o) for o in item.overlaps]


def shuffled_scores(item: RegionText, other: RegionText) -> list[PhraseAttention]:
    """Scores of each phrase with another item's map.

    Region i of n takes the scores of the other item's region at the same relative position; phrase k takes those of the
    other's k-th phrase, counted cyclically. All scores are 0 if the other item has no regions or no phrases.
    """
    borrowed = other.scores()[:, other.pixels > 0]
    if borrowed.size == 0:
        return [PhraseAttention(0.0, 0.0)] * len(item.overlaps)
    here = np.flatnonzero(item.pixels > 0)
    positions = np.arange(len(here)) * borrowed.shape[1] // max(len(here), 1)
    scores = np.zeros((len(borrowed), len(item.pixels)))
    scores[:, here] = borrowed[:, positions]
    return [score_phrase(scores[k % len(borrowed)], item.pixels, o) for k, o in enumerate(item.overlaps)]


def attention_values(items: Sequence[RegionText], seed: int = 0) -> dict[str, list[list[float] | float | None]]:
    """Every item's values by the names of eval.registry: a number for each phrase, or one entropy for the item.

    An item without phrases has None; if no item has phrases, the result is empty. "_shuffled" needs at least two items;
    the seed decides which item takes which map. Entropy has no chance level: it is 1 for a uniform map, and for a
    shuffled map it is that of another item.
    """
    if not any(item.tokens for item in items):
        return {}
    maps = {"": [own_scores(i) for i in items], "_uniform": [uniform_scores(i) for i in items]}
    if len(items) > 1:
        order = np.random.default_rng(seed).permutation(len(items))
        partner = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        maps["_shuffled"] = [shuffled_scores(item, items[partner[i]]) for i, item in enumerate(items)]
    values: dict[str, list[list[float] | float | None]] = {}
    for suffix, scored in maps.items():
        values["pointing_accuracy" + suffix] = [[p.pointing for p in phrases] or None for phrases in scored]
        values["attention_iou" + suffix] = [[p.iou for p in phrases] or None for phrases in scored]
    entropies = [normalised_entropy(i.attention[i.pixels > 0]) if i.tokens else None for i in items]
    return values | {"attention_entropy": entropies}


def normalised_entropy(attention: np.ndarray) -> float:
    """Mean over the regions of the entropy of their attention (N,T), divided by log T: 0 = one token, 1 = uniform.

    Pass the caption's own tokens only, as padding would lower the value. Rows are normalised to sum to 1; a row of zeros
    and a map without regions count as uniform. The result is 0 if there is only one token.
    """
    regions, tokens = attention.shape
    if tokens <= 1:
        return 0.0
    if regions == 0:
        return 1.0
    total = attention.sum(axis=1, keepdims=True)
    share = np.where(total > 0, attention / np.where(total > 0, total, 1.0), 1.0 / tokens)
    terms = share * np.log(np.where(share > 0, share, 1.0))
    return float(-terms.sum(axis=1).mean() / np.log(tokens))


def _checked(attention: np.ndarray, labels: np.ndarray, masks: Sequence[np.ndarray]) -> None:
    if attention.ndim != 2 or not np.isfinite(attention).all() or (attention < 0).any():
        raise ValueError(f"attention {attention.shape} must be (N, T), finite and not negative")
    for shape in (mask.shape for mask in masks):
        if labels.shape != shape or labels.ndim != 2:
            raise ValueError(f"labels {labels.shape} and mask {shape} must both be (H, W)")
    if labels.size and labels.max() >= len(attention):
        raise ValueError(f"labels name region {labels.max()}, attention has {len(attention)} rows")
