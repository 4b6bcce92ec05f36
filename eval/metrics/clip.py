"""Scores from CLIP's embeddings: image against caption, direction of an edit, regions against phrases.

All are functions of embeddings (n,D), which are normalised here, in float64. A row of zeros has no direction: its cosine
with any other is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNMOVED = 1e-6  # a shorter difference of unit vectors is float32 rounding and has no direction
TIE = 1e-6  # phrases whose cosines differ by less tie


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n,) scores 100 max(cos, 0), in 0 to 100, of image embeddings (n,D) and their captions' (n,D).

    CLIPScore (Hessel et al. 2021) with w = 100 instead of 2.5 and without its prefix "A photo depicts", as papers on
    text-to-image models report it: 0.29 elsewhere is 29 here. As in the paper, each pair is clipped at 0, not the mean.
    Raises ValueError for other shapes and for NaN.
    """
    return 100 * np.clip(_cosines(_unit("images", images), _unit("texts", texts)), 0, 1)


def directional_scores(
    before: np.ndarray, after: np.ndarray, text_before: np.ndarray, text_after: np.ndarray
) -> np.ndarray:
    """Cosines between the change of the image and the change of the caption in an edit.

    Differences are of unit vectors (StyleGAN-NADA, Gal et al. 2022; InstructPix2Pix, Brooks et al. 2023).

    Args:
        before: (n,D) embeddings of the images before the edit.
        after: (n,D) embeddings of the images after it.
        text_before: (n,D) embeddings of their captions before the edit.
        text_after: (n,D) embeddings of their captions after it.

    Returns:
        (n,) in -1 to 1; 0 for an unchanged image.

    Raises:
        ValueError: For other shapes, NaN, and captions that do not differ.
    """
    moved = _unit("after", after) - _unit("before", before)
    wanted = _unit("text_after", text_after) - _unit("text_before", text_before)
    same = int((np.linalg.norm(wanted, axis=1) <= UNMOVED).sum())
    if same:
        raise ValueError(f"{same} of {len(wanted)} captions are the same before and after: no edit is named")
    still = np.linalg.norm(moved, axis=1) <= UNMOVED
    return np.where(still, 0.0, _cosines(_normalised(moved), _normalised(wanted)))


def other_captions(captions: Sequence[str], seed: int) -> np.ndarray:
    """(n,) for each item the index of an item whose caption reads differently, or -1 for none.

    No caption is used twice. Items are left without one only if more than half of all captions read the same. Case and
    spaces are ignored, as CLIP's tokenizer ignores them. The assignment is a function of the captions and the seed.
    """
    plain = [" ".join(caption.lower().split()) for caption in captions]
    if not plain:
        return np.zeros(0, np.int64)
    _, groups, counts = np.unique(plain, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    rank = rng.permutation(len(counts))  # random order of the groups, with the largest first
    rank = rank + np.where(np.arange(len(counts)) == counts.argmax(), -len(counts), 0)
    shuffled = rng.permutation(len(plain))
    order = shuffled[np.argsort(rank[groups[shuffled]], kind="stable")]
    assigned = np.empty(len(plain), np.int64)
    assigned[order] = np.roll(order, -counts.max())  # groups are contiguous: a shift by the largest size leaves any
    return np.where(groups[assigned] == groups, -1, assigned)


def rank_regions(similarity: np.ndarray, owners: Sequence[int] | np.ndarray) -> list[float | None]:
    """1 or 0 for each region: whether it is more similar to its own phrase than to every other one.

    Phrases that tie for the largest similarity share the point, so a network that can't distinguish phrases scores 1/P,
    which is chance.

    Args:
        similarity: (R,P) cosines of regions and the caption's distinct phrases.
        owners: (R,) index of each region's own phrase; -1 for none.

    Returns:
        R values; None for a region without a phrase, and for all regions if there is only one phrase.

    Raises:
        ValueError: For other shapes, NaN, and phrases out of range.
    """
    similarity, owners = np.asarray(similarity, np.float64), np.asarray(owners)
    if similarity.ndim != 2 or owners.shape != similarity.shape[:1]:
        raise ValueError(f"similarity {similarity.shape} and owners {owners.shape} must be (R, P) and (R,)")
    if not np.isfinite(similarity).all():
        raise ValueError(f"{int((~np.isfinite(similarity)).sum())} similarities are NaN or infinite")
    phrases = similarity.shape[1]
    if owners.size and not -1 <= owners.min() <= owners.max() < phrases:
        raise ValueError(f"owners from {owners.min()} to {owners.max()}: there are {phrases} phrases, and -1 for none")
    return [_won(row, owner) if owner >= 0 and phrases > 1 else None for row, owner in zip(similarity, owners, strict=True)]


def unit_cosines(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(R,P) cosines of all pairs of rows of (R,D) and (P,D)."""
    return _unit("rows", rows) @ _unit("columns", columns).T


def _won(row: np.ndarray, owner: int) -> float:
    best = row >= row.max() - TIE
    return float(best[owner] / best.sum())


def _unit(name: str, rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2:
        raise ValueError(f"{name} has shape {rows.shape}: it must be (n, D)")
    if not np.isfinite(rows).all():
        raise ValueError(f"{int((~np.isfinite(rows)).any(1).sum())} of {len(rows)} rows of {name} are NaN or infinite")
    return _normalised(rows)


def _normalised(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if first.shape != second.shape:
        raise ValueError(f"embeddings {first.shape} and {second.shape} must be of one shape, (n, D)")
    return np.einsum("nd,nd->n", first, second)
