"""Scores from CLIP's embeddings: image against caption, an edit's direction, regions that rank their own phrase.

All are functions of arrays: embeddings (n,D) need not be normalised, they are here, in float64. A row of zeros has no
direction; its cosine with anything is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNMOVED = 1e-6  # length of a difference of unit vectors up to which it is rounding, of float32, and no direction
TIE = 1e-6  # difference of cosines up to which phrases tie


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n,) scores 100 max(cos, 0), in 0 to 100, of image embeddings (n,D) and their captions' (n,D).

    CLIPScore (Hessel et al. 2021) with w = 100 in place of 2.5 and without its prefix "A photo depicts", as papers on
    text-to-image models report it: 0.29 elsewhere is 29 here. Each pair is clipped at 0, as there, and not their mean.
    Raises ValueError for other shapes and for NaN.
    """
    return 100 * np.clip(_cosines(_unit("images", images), _unit("texts", texts)), 0, 1)


def directional_scores(
    before: np.ndarray, after: np.ndarray, text_before: np.ndarray, text_after: np.ndarray
) -> np.ndarray:
    """(n,) cosines, in -1 to 1, between how an edit moved the image and how the caption moved, embeddings (n,D) each.

    Differences are of unit vectors (StyleGAN-NADA, Gal et al. 2022; InstructPix2Pix, Brooks et al. 2023). An image that
    did not move went nowhere: 0. Raises ValueError for other shapes, NaN, and captions that do not differ.
    """
    moved = _unit("after", after) - _unit("before", before)
    wanted = _unit("text_after", text_after) - _unit("text_before", text_before)
    same = int((np.linalg.norm(wanted, axis=1) <= UNMOVED).sum())
    if same:
        raise ValueError(f"{same} of {len(wanted)} captions are the same before and after: no edit is named")
    still = np.linalg.norm(moved, axis=1) <= UNMOVED
    return np.where(still, 0.0, _cosines(_normalised(moved), _normalised(wanted)))


def other_captions(captions: Sequence[str], seed: int) -> np.ndarray:
    """(n,) for each item the number of an item whose caption reads differently: the same for the same seed.

    No caption is used twice, and as few items as possible are left with none, -1: those in excess where more than half
    of all captions read the same. Case and spaces make no difference, as they make none to CLIP's tokenizer.
    """
    plain = [" ".join(caption.lower().split()) for caption in captions]
    if not plain:
        return np.zeros(0, np.int64)
    _, groups, counts = np.unique(plain, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    place = rng.permutation(len(counts))  # of the groups, in random order: but the largest leads
    place = place + np.where(np.arange(len(counts)) == counts.argmax(), -len(counts), 0)
    shuffled = rng.permutation(len(plain))
    order = shuffled[np.argsort(place[groups[shuffled]], kind="stable")]
    found = np.empty(len(plain), np.int64)
    found[order] = np.roll(order, -counts.max())  # groups lie together, so a step of the largest one's size leaves any
    return np.where(groups[found] == groups, -1, found)


def rank_regions(similarity: np.ndarray, owners: Sequence[int] | np.ndarray) -> list[float | None]:
    """Of each region, whether it is more similar to its own phrase than to every other: 1 or 0.

    similarity (R,P) of regions and the caption's different phrases, as cosines; owners (R,) each region's own phrase, -1
    = none. Phrases that tie for the most share the point, so a network that can't tell phrases apart gets 1/P: chance.
    None for a region without a phrase, and where the caption has no other phrase. Raises ValueError for other shapes,
    NaN, and phrases out of range.
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
    """(R,P) cosines of every one of (R,D) with every one of (P,D)."""
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
