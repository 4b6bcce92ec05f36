"""CLIP scores of a set of images: against their captions, of edits, and of regions against their phrases.

Each function returns every item's values by the names of metrics.json, in the form that eval.items.add_values takes, and
the facts that metrics.json records with the figures. Each score comes with its chance level: the same score for another
item's caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.clip.crops import PhraseRegions, crop_set
from eval.clip.network import Clip
from eval.features.cached import features_of
from eval.metrics.clip import clip_scores, directional_scores, other_captions, rank_regions, unit_cosines

__all__ = ["Clip", "PhraseRegions", "Scored", "caption_scores", "edit_scores", "region_scores"]


@dataclass(frozen=True)
class Scored:
    """For each metric, a value for every item, None where it does not apply, and the facts to record with its figure."""

    values: dict[str, list[float | list[float | None] | None]]
    facts: dict[str, dict[str, Any]]


def caption_scores(
    clip: Clip, images: Sequence[np.ndarray], captions: Sequence[str], *, seed: int = 0,
    features: np.ndarray | None = None,
) -> Scored:  # fmt: skip
    """clip_score and clip_score_shuffled, 0 to 100: see eval.metrics.clip.clip_scores.

    Each item is scored against its own caption and against the caption of one other item.

    Args:
        clip: The network.
        images: (H,W,3) uint8 each; read one at a time, so a lazy sequence will do.
        captions: One for each image; items with an empty one are counted and get None.
        seed: Of the assignment of other captions.
        features: (n, dim) embeddings of the images, if they are known.

    Returns:
        Values and facts. The chance level is None where every other caption reads the same.

    Raises:
        ValueError: If the numbers of images and captions differ.
    """
    _as_many(images=images, captions=captions)
    rows = [i for i, caption in enumerate(captions) if caption.strip()]
    texts = [captions[i] for i in rows]
    image_embeddings = clip.images((images[i] for i in rows), len(rows)) if features is None else np.asarray(features)[rows]
    text_embeddings = clip.texts(texts)
    other = other_captions(texts, seed)
    common = clip.facts() | {"score": "100 max(cos, 0)", "truncated_captions": clip.truncated(texts),
                             "without_caption": len(captions) - len(rows)}  # fmt: skip
    right, floor = clip_scores(image_embeddings, text_embeddings), clip_scores(image_embeddings, text_embeddings[other])
    return _with_floor("clip_score", _placed(right, rows, len(images)), _placed(floor, rows, len(images), other >= 0),
                       common, seed)  # fmt: skip


def edit_scores(
    clip: Clip, before: Sequence[np.ndarray], after: Sequence[np.ndarray], captions_before: Sequence[str],
    captions_after: Sequence[str], *, seed: int = 0, features: tuple[np.ndarray, np.ndarray] | None = None,
) -> Scored:  # fmt: skip
    """clip_directional and clip_directional_shuffled, -1 to 1: see eval.metrics.clip.directional_scores.

    The chance level uses the direction of another item's edit. Unchanged images score 0 and are counted.

    Args:
        clip: The network.
        before: (H,W,3) uint8 images before the edit.
        after: The images after it.
        captions_before: Captions of `before`.
        captions_after: Captions of `after`.
        seed: Of the assignment of other edits.
        features: (n, dim) embeddings of `before` and of `after`, if they are known.

    Raises:
        ValueError: If the sequences differ in length, or if both captions of an item are the same.
    """
    _as_many(before=before, after=after, captions_before=captions_before, captions_after=captions_after)
    edits = [f"{old}\n{new}" for old, new in zip(captions_before, captions_after, strict=True)]
    other = other_captions(edits, seed)
    still: list[bool] = []
    pairs = _alternating(before, after, still)
    if features is None:
        embeddings = clip.images(pairs, total=2 * len(before))
        first, last = embeddings[0::2], embeddings[1::2]
    else:
        for _ in pairs:  # fills `still`
            continue
        first, last = (np.array(embedded) for embedded in features)
    last[still] = first[still]  # equal pictures in different batches differ in the last digits, which is no direction
    old, new = clip.texts(captions_before), clip.texts(captions_after)
    common = clip.facts() | {
        "unchanged_images": sum(still),
        "truncated_captions": clip.truncated(captions_before) + clip.truncated(captions_after),
    }
    right = directional_scores(first, last, old, new)
    floor = directional_scores(first, last, old[other], new[other])
    rows = range(len(right))
    return _with_floor("clip_directional", _placed(right, rows, len(rows)),
                       _placed(floor, rows, len(rows), other >= 0), common, seed)  # fmt: skip


def region_scores(
    clip: Clip, images: Sequence[np.ndarray], regions: Sequence[PhraseRegions], *, cache_folder: str | Path | None = None
) -> Scored:
    """region_clip_accuracy and region_clip_chance: whether each region's crop ranks its own phrase first.

    See eval.metrics.clip.rank_regions. The chance level is one over the number of distinct phrases.

    Args:
        clip: The network.
        images: (H,W,3) uint8 each.
        regions: The regions of each image.
        cache_folder: Folder that keeps the crops' embeddings, so that a killed run resumes from them; None keeps none.

    Returns:
        For each image a list with a value for each region. A region without a phrase, or whose caption has only one
        distinct phrase, is None; so is an image without any region.

    Raises:
        ValueError: If the numbers of images and regions differ, or if regions don't fit their image.
    """
    _as_many(images=images, regions=regions)
    plans = [_plan(known) for known in regions]
    crops = crop_set(images, regions, [(i, r) for i, plan in enumerate(plans) for r in plan.chosen], clip.mean)
    embeddings = features_of(crops, clip, cache_folder) if cache_folder and len(crops) else clip.images(crops)
    text_embeddings = _by_text(clip, [phrase for plan in plans if plan.chosen for phrase in plan.phrases])
    accuracy, chance, start = [], [], 0
    for plan, known in zip(plans, regions, strict=True):
        part = embeddings[start : start + len(plan.chosen)]
        start += len(plan.chosen)
        won = _spread(plan, part, text_embeddings, len(known.owners)) if plan.chosen else None
        accuracy.append(won)
        chance.append(won and [None if v is None else 1 / len(plan.phrases) for v in won])
    facts = clip.facts() | {"left_out_regions": sum(len(known.owners) for known in regions) - len(embeddings)}
    return Scored({"region_clip_accuracy": accuracy, "region_clip_chance": chance},
                  {"region_clip_accuracy": facts, "region_clip_chance": facts})  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """The regions and phrases of one image that are ranked."""

    phrases: list[str]  # distinct ones
    chosen: list[int]  # regions with a phrase
    owners: list[int]  # index in `phrases` of each chosen region's phrase


def _plan(regions: PhraseRegions) -> _Plan:
    """Merge phrases that read the same: the two of "a red circle and a red circle" can't be distinguished."""
    plain = [" ".join(phrase.split()) for phrase in regions.phrases]
    distinct: dict[str, str] = {}
    for phrase in plain:
        distinct.setdefault(phrase.lower(), phrase)
    index = {key: i for i, key in enumerate(distinct)}
    chosen = [i for i, owner in enumerate(regions.owners) if owner >= 0] if len(distinct) > 1 else []
    return _Plan(list(distinct.values()), chosen, [index[plain[regions.owners[i]].lower()] for i in chosen])


def _by_text(clip: Clip, phrases: Sequence[str]) -> dict[str, np.ndarray]:
    """The embedding of each distinct phrase."""
    distinct = sorted(set(phrases))
    return dict(zip(distinct, clip.texts(distinct), strict=True))


def _spread(plan: _Plan, embeddings: np.ndarray, text_embeddings: dict[str, np.ndarray], count: int) -> list[float | None]:
    """The scores of all `count` regions; None for those that were not chosen."""
    similarity = unit_cosines(embeddings, np.stack([text_embeddings[phrase] for phrase in plan.phrases]))
    won: list[float | None] = [None] * count
    for region, point in zip(plan.chosen, rank_regions(similarity, plan.owners), strict=True):
        won[region] = point
    return won


def _alternating(before: Sequence[np.ndarray], after: Sequence[np.ndarray], still: list[bool]) -> Iterator[np.ndarray]:
    """The pictures of both sequences in turn, read once. Appends to `still` whether each pair is equal."""
    for old, new in zip(before, after, strict=True):
        still.append(np.array_equal(old, new))
        yield from (old, new)


def _placed(
    values: np.ndarray, rows: Sequence[int], count: int, known: np.ndarray | None = None
) -> list[float | list[float | None] | None]:
    """Values for `count` items: `values` at `rows`, None elsewhere and where `known` is false."""
    placed: list = [None] * count
    for i, row in enumerate(rows):
        if known is None or known[i]:
            placed[row] = float(values[i])
    return placed


def _with_floor(name: str, right: list, floor: list, common: dict[str, Any], seed: int) -> Scored:
    left_out = sum(v is not None for v in right) - sum(v is not None for v in floor)
    return Scored({name: right, f"{name}_shuffled": floor},
                  {name: common, f"{name}_shuffled": common | {"seed": seed, "left_out": left_out}})  # fmt: skip


def _as_many(**sequences: Sequence) -> None:
    if len({len(sequence) for sequence in sequences.values()}) > 1:
        counts = ", ".join(f"{len(sequence)} {name}" for name, sequence in sequences.items())
        raise ValueError(f"{counts}: there must be as many of each")
