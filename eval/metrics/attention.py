"""Does the region-to-text attention look where the caption says? Pointing game, IoU, entropy, beside chance.

A phrase ("a striped blue star") gives every region a score: the attention that the region pays to the
phrase's tokens, summed. Scores belong to regions; strokes lie in no region and count neither for nor against
a map. A region without pixels, such as a batch's padding, takes no part.

Chance is measured twice. The uniform map knows nothing at all. The shuffled map is another item's, read at the same
places in the order of regions and of phrases: what it scores comes from habits that hold for any item (the background
is ignored, the first phrase is the leftmost region's) and not from having looked at this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOUND = 0.5  # of the largest score: regions from there on are what a map found
TIED = 1e-5  # relative: scores that differ by less share the first place


@dataclass(frozen=True)
class PhraseAttention:
    """How well one phrase is found by the regions."""

    pointing: float  # 1: the region with the most attention lies mostly on the object; ties share
    iou: float  # of the pixels with at least half the largest score, with the object's pixels


@dataclass(frozen=True)
class RegionText:
    """One item's attention and the truth about its phrases, in numbers of pixels. K phrases, N regions, T tokens."""

    attention: np.ndarray  # (N,T) of the caption's own tokens, not negative
    tokens: tuple[tuple[int, ...], ...]  # K: each phrase's columns
    pixels: np.ndarray  # (N,) of each region
    overlaps: np.ndarray  # (K,N) of each region on each phrase's object

    def scores(self) -> np.ndarray:
        """(K,N) attention of each region to each phrase."""
        return np.array([self.attention[:, list(t)].sum(1) for t in self.tokens]).reshape(self.overlaps.shape)


def region_text(
    attention: np.ndarray, labels: np.ndarray, masks: Sequence[np.ndarray], tokens: Sequence[Sequence[int]]
) -> RegionText:
    """What is to be scored of one item.

    attention (N,T) not negative, labels (H,W) with a region's row or -1, masks and tokens: for each phrase (H,W) bool
    with its object's pixels and the columns of its tokens. Raises ValueError where shapes, signs or indices don't fit.
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
    """Score one phrase from each region's attention to it, its pixels, and those on the phrase's object: all (N,).

    Regions that tie for the most attention share the point, so a uniform map gets the share of regions that lie on
    the object: chance. Without a region, or without attention to the phrase, nothing is found: both are 0.
    """
    scores = np.where(pixels > 0, scores, 0.0)
    best = scores.max(initial=0.0)
    if best <= 0.0:
        return PhraseAttention(0.0, 0.0)
    first = np.isclose(scores, best, rtol=TIED, atol=0.0)
    pointing = float((overlap[first] > 0.5 * pixels[first]).mean())
    found = (scores >= FOUND * best * (1 - TIED)) & (pixels > 0)
    shared = overlap[found].sum()
    return PhraseAttention(pointing, float(shared / (pixels[found].sum() + overlap.sum() - shared)))


def own_scores(item: RegionText) -> list[PhraseAttention]:
    """Each phrase by the item's own map."""
    return [score_phrase(s, item.pixels, o) for s, o in zip(item.scores(), item.overlaps, strict=True)]


def uniform_scores(item: RegionText) -> list[PhraseAttention]:
    """Each phrase by a map that pays the same attention everywhere."""
    return [score_phrase(np.ones(len(item.pixels)), item.pixels, o) for o in item.overlaps]


def shuffled_scores(item: RegionText, other: RegionText) -> list[PhraseAttention]:
    """Each phrase by another item's map: region i of n takes the scores of the other's region at the same share of
    its order, phrase k those of the other's k-th phrase, counted on from the first where it has fewer.

    An item without regions or phrases has no map to lend: nothing is found by it.
    """
    lent = other.scores()[:, other.pixels > 0]
    if lent.size == 0:
        return [PhraseAttention(0.0, 0.0)] * len(item.overlaps)
    here = np.flatnonzero(item.pixels > 0)
    places = np.arange(len(here)) * lent.shape[1] // max(len(here), 1)
    scores = np.zeros((len(lent), len(item.pixels)))
    scores[:, here] = lent[:, places]
    return [score_phrase(scores[k % len(lent)], item.pixels, o) for k, o in enumerate(item.overlaps)]


def attention_values(items: Sequence[RegionText], seed: int = 0) -> dict[str, list[list[float] | float | None]]:
    """What every item scored, by the names of eval.registry: a number for each phrase, or one entropy for the item.

    None for an item without phrases; nothing at all where no item has any. "_shuffled" needs a second item; the seed
    decides who borrows from whom. The entropy of a uniform map is 1 and that of a shuffled map is some item's own, so
    neither stands beside it.
    """
    if not any(item.tokens for item in items):
        return {}
    maps = {"": [own_scores(i) for i in items], "_uniform": [uniform_scores(i) for i in items]}
    if len(items) > 1:
        order = np.random.default_rng(seed).permutation(len(items))
        lender = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        maps["_shuffled"] = [shuffled_scores(item, items[lender[i]]) for i, item in enumerate(items)]
    values: dict[str, list[list[float] | float | None]] = {}
    for suffix, scored in maps.items():
        values["pointing_accuracy" + suffix] = [[p.pointing for p in phrases] or None for phrases in scored]
        values["attention_iou" + suffix] = [[p.iou for p in phrases] or None for phrases in scored]
    entropies = [normalised_entropy(i.attention[i.pixels > 0]) if i.tokens else None for i in items]
    return values | {"attention_entropy": entropies}


def normalised_entropy(attention: np.ndarray) -> float:
    """Mean over the regions of the entropy of their attention (N,T), over log T: 0 = one token, 1 = uniform.

    Pass the caption's own tokens only: padding would lower the figure. Rows are normalised to sum to 1; a
    row of zeros counts as uniform, and so does a map without regions: it says nothing. One token leaves no
    choice: 0.
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
