"""CLIP scores of a set of images: against their captions, of edits, and of regions against their phrases.

Each function gives what every item scored, by the names of metrics.json and in the form that eval.items.add_values takes,
and the facts that stand beside the figures. `clip` is a eval.clip.network.Clip. Beside a score stands its floor: the
same for another item's caption.
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
    """Of each metric, a value for every item, or None where it could not be had; and the facts beside its figure."""

    values: dict[str, list[float | list[float | None] | None]]
    facts: dict[str, dict[str, Any]]


def caption_scores(
    clip: Clip, images: Sequence[np.ndarray], captions: Sequence[str], *, seed: int = 0,
    features: np.ndarray | None = None,
) -> Scored:  # fmt: skip
    """clip_score and clip_score_shuffled, 0 to 100: see eval.metrics.clip.clip_scores.

    images: uint8 (H,W,3), one at a time, so a lazy sequence will do. features (n, dim): the same, embedded before. Each
    item is scored against its own caption and against that of one other item, the same one for the same seed and the same
    captions. None for an item without a caption, which is counted, and for a floor where every other caption reads the
    same. Raises ValueError where images and captions differ in number.
    """
    _as_many(images=images, captions=captions)
    rows = [i for i, caption in enumerate(captions) if caption.strip()]
    said = [captions[i] for i in rows]
    seen = clip.images((images[i] for i in rows), len(rows)) if features is None else np.asarray(features)[rows]
    read = clip.texts(said)
    other = other_captions(said, seed)
    common = clip.facts() | {"score": "100 max(cos, 0)", "truncated_captions": clip.truncated(said),
                             "without_caption": len(captions) - len(rows)}  # fmt: skip
    right, floor = clip_scores(seen, read), clip_scores(seen, read[other])
    return _with_floor("clip_score", _placed(right, rows, len(images)), _placed(floor, rows, len(images), other >= 0),
                       common, seed)  # fmt: skip


def edit_scores(
    clip: Clip, before: Sequence[np.ndarray], after: Sequence[np.ndarray], captions_before: Sequence[str],
    captions_after: Sequence[str], *, seed: int = 0, features: tuple[np.ndarray, np.ndarray] | None = None,
) -> Scored:  # fmt: skip
    """clip_directional and clip_directional_shuffled, -1 to 1: see eval.metrics.clip.directional_scores.

    The floor is the direction of another item's edit. An image that the edit left as it was scores 0, and is counted.
    features (n, dim), twice: the images before and after, embedded already. Raises ValueError where the sequences differ
    in length or an item's captions are the same.
    """
    _as_many(before=before, after=after, captions_before=captions_before, captions_after=captions_after)
    edits = [f"{old}\n{new}" for old, new in zip(captions_before, captions_after, strict=True)]
    other = other_captions(edits, seed)
    still: list[bool] = []
    pairs = _alternating(before, after, still)
    if features is None:
        seen = clip.images(pairs, total=2 * len(before))
        first, last = seen[0::2], seen[1::2]
    else:
        for _ in pairs:  # only to see which are equal
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
    """region_clip_accuracy, and region_clip_chance beside it: of each region, whether its crop ranks its own phrase above
    the caption's other phrases (eval.metrics.clip.rank_regions), and one over the number of phrases that differ.

    A list for each image with a number for each region: None for one without a phrase, or without a rival to it; None for
    an image without any. cache_folder: keeps the crops' embeddings there, so that a killed run goes on from them. Raises
    ValueError where images and regions differ in number or don't fit (eval.clip.crops).
    """
    _as_many(images=images, regions=regions)
    plans = [_plan(known) for known in regions]
    crops = crop_set(images, regions, [(i, r) for i, plan in enumerate(plans) for r in plan.chosen], clip.mean)
    seen = features_of(crops, clip, cache_folder) if cache_folder and len(crops) else clip.images(crops)
    read = _by_text(clip, [phrase for plan in plans if plan.chosen for phrase in plan.phrases])
    accuracy, chance, start = [], [], 0
    for plan, known in zip(plans, regions, strict=True):
        part = seen[start : start + len(plan.chosen)]
        start += len(plan.chosen)
        won = _spread(plan, part, read, len(known.owners)) if plan.chosen else None
        accuracy.append(won)
        chance.append(won and [None if v is None else 1 / len(plan.phrases) for v in won])
    facts = clip.facts() | {"left_out_regions": sum(len(known.owners) for known in regions) - len(seen)}
    return Scored({"region_clip_accuracy": accuracy, "region_clip_chance": chance},
                  {"region_clip_accuracy": facts, "region_clip_chance": facts})  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """What is ranked in one image."""

    phrases: list[str]  # that differ
    chosen: list[int]  # regions with a phrase that has rivals
    owners: list[int]  # of these, among `phrases`


def _plan(regions: PhraseRegions) -> _Plan:
    """Phrases that read the same are one: "a red circle and a red circle" can't be told apart."""
    plain = [" ".join(phrase.split()) for phrase in regions.phrases]
    distinct: dict[str, str] = {}
    for phrase in plain:
        distinct.setdefault(phrase.lower(), phrase)
    place = {key: i for i, key in enumerate(distinct)}
    chosen = [i for i, owner in enumerate(regions.owners) if owner >= 0] if len(distinct) > 1 else []
    return _Plan(list(distinct.values()), chosen, [place[plain[regions.owners[i]].lower()] for i in chosen])


def _by_text(clip: Clip, phrases: Sequence[str]) -> dict[str, np.ndarray]:
    """The embedding of each phrase, made once however often it occurs."""
    distinct = sorted(set(phrases))
    return dict(zip(distinct, clip.texts(distinct), strict=True))


def _spread(plan: _Plan, seen: np.ndarray, read: dict[str, np.ndarray], count: int) -> list[float | None]:
    """What the chosen ones of `count` regions scored, in their places."""
    similarity = unit_cosines(seen, np.stack([read[phrase] for phrase in plan.phrases]))
    won: list[float | None] = [None] * count
    for region, point in zip(plan.chosen, rank_regions(similarity, plan.owners), strict=True):
        won[region] = point
    return won


def _alternating(before: Sequence[np.ndarray], after: Sequence[np.ndarray], still: list[bool]) -> Iterator[np.ndarray]:
    """Both sequences' pictures in turn, read once; `still` gets whether each pair is of equal pictures."""
    for old, new in zip(before, after, strict=True):
        still.append(np.array_equal(old, new))
        yield from (old, new)


def _placed(
    values: np.ndarray, rows: Sequence[int], count: int, known: np.ndarray | None = None
) -> list[float | list[float | None] | None]:
    """Values of some rows among `count` items, None for the others and where they are not known."""
    found: list = [None] * count
    for i, row in enumerate(rows):
        if known is None or known[i]:
            found[row] = float(values[i])
    return found


def _with_floor(name: str, right: list, floor: list, common: dict[str, Any], seed: int) -> Scored:
    left_out = sum(v is not None for v in right) - sum(v is not None for v in floor)
    return Scored({name: right, f"{name}_shuffled": floor},
                  {name: common, f"{name}_shuffled": common | {"seed": seed, "left_out": left_out}})  # fmt: skip


def _as_many(**sequences: Sequence) -> None:
    if len({len(sequence) for sequence in sequences.values()}) > 1:
        counts = ", ".join(f"{len(sequence)} {name}" for name, sequence in sequences.items())
        raise ValueError(f"{counts}: there must be as many of each")
