"""Checks that the figures of several runs are comparable: measured on the same items in the same way."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from eval.registry import SKETCH
from eval.statistics.paired import shared_items
from ragaf_exp.core.errors import UserError
from ragaf_exp.report.catalogue import head, metric
from ragaf_exp.report.compare.runs import Member

SIZES = ("n", "items")  # how much was measured
CONDITIONS = ("weights", "split", "resolution", "reference", "reference_checksum", "n_reference")  # must be the same
FREE = (  # keys of a figure that may differ: its value, its noise, and counts that depend on the items
    "value", "ci95", "higher_is_better", "warning", "seed", "resamples", "truth", "truncated_captions", "without_caption",
    "left_out_regions", "unchanged_images",
)  # fmt: skip
LONG = 32  # longer values, such as checksums, are abbreviated
TRAINING = ("train", "val", "train_repeat_share")  # keys of `data` that do not affect test items


def check_comparable(members: list[Member], common: bool) -> None:
    """Raise a one-line UserError that names the differences between two of the runs.

    If `common` is set, only the items of all runs are compared, so that their numbers may differ.
    """
    for first, other in combinations(members, 2):
        names = [name for name in first.run.metrics if name in other.run.metrics]
        by_item = [name for name in names if not common or _scored(first, name) and _scored(other, name)]
        sizes = [] if common else _differing(first, other, SIZES, [n for n in names if not _by_object(n, first, other)])
        conditions = _differing(first, other, CONDITIONS, by_item)
        items = _item_faults(first, other, common) if first is members[0] else []
        if faults := [*conditions, *sizes, *items]:
            same_way = "evaluate both in the same way"
            fix = same_way if conditions or common else "evaluate both on the same items, or add items=common"
            raise UserError(
                f"{first.name} ({first.letter}) and {other.name} ({other.letter}) can't be compared: "
                f"{'; '.join(faults)}; {fix}"
            )


def sizes_differ(members: list[Member]) -> bool:
    """Whether some figure was measured on more items in one run than in another."""
    return any(_differing(*pair, SIZES, pair[0].run.metrics) for pair in combinations(members, 2))


def measured_differently(name: str, first: Member, other: Member, common: bool) -> str:
    """The reason why a single figure of two comparable runs can't be compared.

    Args:
        name: Of the figure.
        first: One run.
        other: The other run.
        common: Whether only common items are compared.

    Returns:
        The reason; empty if the figure can be compared.
    """
    if metric(name).group == SKETCH and sketches_differ(first, other):
        return "against other sketches"
    a, b = (_stated(m.run.metrics[name]) for m in (first, other))
    free = (*FREE, *SIZES, *CONDITIONS) if common else FREE
    keys = [k for k in dict.fromkeys([*a, *b]) if k not in free and a.get(k) != b.get(k)]
    differences = [f"{key.replace('_', ' ')} {_shown(a.get(key))} and {_shown(b.get(key))}" for key in keys]
    return f"measured differently: {', '.join(differences)}" if differences else ""


def sketches_differ(first: Member, other: Member) -> bool:
    """Whether two runs on the same images used different sketches, for example of different extractors."""
    if first.rows is None or other.rows is None:
        return first.run.settings.get("sketch") != other.run.settings.get("sketch")
    followed = {row.key: row.sketch for row in first.rows}
    return any(followed.get(row.key, row.sketch) != row.sketch for row in other.rows)


def _scored(member: Member, name: str) -> bool:
    return any(name in row.values for row in member.rows or [])


def _by_object(name: str, first: Member, other: Member) -> bool:
    """Whether a figure counts objects or regions of known items. Their number may differ, as regions depend on settings."""
    known = first.rows is not None and other.rows is not None
    return known and all("items" in m.run.metrics[name] for m in (first, other))


def _stated(entry: dict[str, Any]) -> dict[str, Any]:
    """The facts recorded with a figure; the reference's name only if there is no checksum of it."""
    return {k: v for k, v in entry.items() if k != "reference" or "reference_checksum" not in entry}


def _differing(first: Member, other: Member, keys: tuple[str, ...], names: Iterable[str]) -> list[str]:
    """Distinct differences in these keys of common figures; those of some figures only name the figures."""
    figures_by_text: dict[str, list[str]] = {}
    shared = [name for name in names if name in other.run.metrics]
    for name in shared:
        a, b = (_stated(m.run.metrics[name]) for m in (first, other))
        for key in (key for key in keys if a.get(key) != b.get(key)):
            figures_by_text.setdefault(f"{key} {_shown(a.get(key))} and {_shown(b.get(key))}", []).append(name)
    return [text + ("" if len(figures) == len(shared) else f" ({_titles(figures)})")
            for text, figures in figures_by_text.items()]  # fmt: skip


def _item_faults(first: Member, other: Member, common: bool) -> list[str]:
    """Differences of the test items: of the items themselves, or of the keys of `data` if items are unknown."""
    a, b = (m.run.settings.get("data") or {} for m in (first, other))
    keys = [k for k in dict.fromkeys([*a, *b]) if k not in TRAINING and a.get(k) != b.get(k)]
    differences = [f"data.{key} {_shown(a.get(key))} and {_shown(b.get(key))}" for key in keys]
    lacking = [m for m in (first, other) if m.rows is None]
    if lacking:
        if common:
            lacks = lacking[0]
            raise UserError(f"items=common: {lacks.path}/items.jsonl is missing; python -m eval run={lacks.path} writes it")
        return differences
    try:
        shared_items([first.rows, other.rows], common)
    except ValueError as error:
        return [f"{error} ({', '.join(differences)})" if differences else str(error)]
    return []


def _shown(value: Any) -> str:
    text = "not stated" if value is None else str(value)
    return text if len(text) <= LONG else text[:12] + "…"


def _titles(names: list[str]) -> str:
    titles = list(dict.fromkeys(head(name)["title"] for name in names))
    return ", ".join(titles[:2]) + (f" and {len(titles) - 2} more" if len(titles) > 2 else "")
