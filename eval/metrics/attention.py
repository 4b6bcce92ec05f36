"""Does the region-to-text attention look where the caption says? Pointing game, IoU, entropy.

A phrase ("a striped blue star") gives every region a score: the attention that the region pays to the
phrase's tokens, summed. Scores belong to regions; strokes lie in no region and count neither for nor against
a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PhraseAttention:
    """How well one phrase is found by the regions."""

    pointing: float  # 1: the region with the most attention lies mostly on the object; ties share
    iou: float  # of the pixels with at least half the largest score, with the object's pixels


def phrase_attention(
    attention: np.ndarray, labels: np.ndarray, mask: np.ndarray, tokens: Sequence[int] | slice
) -> PhraseAttention:
    """Score one phrase.

    attention (N,T) not negative, labels (H,W) with a region's row or -1, mask (H,W) bool with the object's
    pixels, tokens the columns of its phrase. Regions that tie for the most attention share the point, so a
    uniform map gets the share of regions that lie on the object: chance. Without a region, or without
    attention to the phrase, nothing is found: both are 0. Raises ValueError where shapes, signs or indices
    don't fit.
    """
    _checked(attention, labels, mask)
    score = attention[:, tokens].sum(axis=1)
    inside = labels >= 0
    best = score.max(initial=0.0)
    if best <= 0.0 or not inside.any():
        return PhraseAttention(0.0, 0.0)
    on_object = region_overlap(labels, mask, len(attention)) > 0.5
    pointing = float(on_object[np.isclose(score, best, rtol=1e-5, atol=0.0)].mean())
    found = np.zeros(labels.shape, bool)
    found[inside] = score[labels[inside]] >= 0.5 * best
    wanted = mask.astype(bool) & inside
    union = int((found | wanted).sum())
    return PhraseAttention(pointing, float((found & wanted).sum() / union) if union else 0.0)


def region_overlap(labels: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """(count,) share of each region's pixels that lie in the mask; 0 for a region without pixels."""
    inside = labels >= 0
    pixels = np.bincount(labels[inside], minlength=count)
    hits = np.bincount(labels[inside], weights=mask[inside].astype(np.float64), minlength=count)
    return hits / np.maximum(pixels, 1)


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


def _checked(attention: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> None:
    if attention.ndim != 2 or not np.isfinite(attention).all() or (attention < 0).any():
        raise ValueError(f"attention {attention.shape} must be (N, T), finite and not negative")
    if labels.shape != mask.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and mask {mask.shape} must both be (H, W)")
    if labels.size and labels.max() >= len(attention):
        raise ValueError(f"labels name region {labels.max()}, attention has {len(attention)} rows")
