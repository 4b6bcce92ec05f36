"""May two runs' figures stand in one table? Only where both were measured on the same items in the same way."""

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
FREE = (  # beside a figure, and no condition of it: what it came to, its noise, and counts that hang on the items
    "value", "ci95", "higher_is_better", "warning", "seed", "resamples", "truth", "truncated_captions", "without_caption",
    "left_out_regions", "unchanged_images",
)  # fmt: skip
LONG = 32  # letters from which a value, such as a checksum, is told by its first
TRAINING = ("train", "val", "train_repeat_share")  # keys of data that test items don't hang on


def refuse_unlike(members: list[Member], common: bool) -> None:
    """UserError of one line that names what differs between two of the runs.

    common: only the items that all share are to be compared, so that their number may differ.
    """
    for first, other in combinations(members, 2):
        names = [name for name in first.run.metrics if name in other.run.metrics]
        by_item = [name for name in names if not common or _scored(first, name) and _scored(other, name)]
        sizes = [] if common else _differing(first, other, SIZES, [n for n in names if not _by_object(n, first, other)])
        conditions = _differing(first, other, CONDITIONS, by_item)
        items = _item_faults(first, other, common) if first is members[0] else []
        if faults := [*conditions, *sizes, *items]:
            mend = "evaluate both alike" if conditions or common else "evaluate both on the same items, or add items=common"
            raise UserError(
                f"{first.name} ({first.letter}) and {other.name} ({other.letter}) can't be compared: "
                f"{'; '.join(faults)}; {mend}"
            )


def sizes_differ(members: list[Member]) -> bool:
    """Whether some figure was measured on more in one run than in another."""
    return any(_differing(*pair, SIZES, pair[0].run.metrics) for pair in combinations(members, 2))


def measured_differently(name: str, first: Member, other: Member, common: bool) -> str:
    """Why a figure of two comparable runs still can't be held against each other; empty where it can."""
    if metric(name).group == SKETCH and other_sketches(first, other):
        return "against other sketches"
    a, b = (_stated(m.run.metrics[name]) for m in (first, other))
    free = (*FREE, *SIZES, *CONDITIONS) if common else FREE
    keys = [k for k in dict.fromkeys([*a, *b]) if k not in free and a.get(k) != b.get(k)]
    told = [f"{key.replace('_', ' ')} {_told(a.get(key))} and {_told(b.get(key))}" for key in keys]
    return f"measured differently: {', '.join(told)}" if told else ""


def other_sketches(first: Member, other: Member) -> bool:
    """Whether two runs on the same images followed different sketches, as of another extractor."""
    if first.rows is None or other.rows is None:
        return first.run.settings.get("sketch") != other.run.settings.get("sketch")
    followed = {row.key: row.sketch for row in first.rows}
    return any(followed.get(row.key, row.sketch) != row.sketch for row in other.rows)


def _scored(member: Member, name: str) -> bool:
    return any(name in row.values for row in member.rows or [])


def _by_object(name: str, first: Member, other: Member) -> bool:
    """Whether a figure counts the objects or regions of items that are known: of the same items these may differ in number,
    as regions do with their settings.
    """
    known = first.rows is not None and other.rows is not None
    return known and all("items" in m.run.metrics[name] for m in (first, other))


def _stated(entry: dict[str, Any]) -> dict[str, Any]:
    """What stands beside a figure; the name of its reference only where no checksum says which it is."""
    return {k: v for k, v in entry.items() if k != "reference" or "reference_checksum" not in entry}


def _differing(first: Member, other: Member, keys: tuple[str, ...], names: Iterable[str]) -> list[str]:
    """What of these keys differs beside figures that both have, each once, with the figures where it is not all."""
    found: dict[str, list[str]] = {}
    shared = [name for name in names if name in other.run.metrics]
    for name in shared:
        a, b = (_stated(m.run.metrics[name]) for m in (first, other))
        for key in (key for key in keys if a.get(key) != b.get(key)):
            found.setdefault(f"{key} {_told(a.get(key))} and {_told(b.get(key))}", []).append(name)
    return [what + ("" if len(who) == len(shared) else f" ({_titles(who)})") for what, who in found.items()]


def _item_faults(first: Member, other: Member, common: bool) -> list[str]:
    """How the test items differ: by the items themselves, or where they are unknown by the keys of `data`."""
    a, b = (m.run.settings.get("data") or {} for m in (first, other))
    keys = [k for k in dict.fromkeys([*a, *b]) if k not in TRAINING and a.get(k) != b.get(k)]
    told = [f"data.{key} {_told(a.get(key))} and {_told(b.get(key))}" for key in keys]
    lacking = [m for m in (first, other) if m.rows is None]
    if lacking:
        if common:
            lacks = lacking[0]
            raise UserError(f"items=common: {lacks.path}/items.jsonl is missing; python -m eval run={lacks.path} writes it")
        return told
    try:
        shared_items([first.rows, other.rows], common)
    except ValueError as error:
        return [f"{error} ({', '.join(told)})" if told else str(error)]
    return []


def _told(value: Any) -> str:
    text = "not stated" if value is None else str(value)
    return text if len(text) <= LONG else text[:12] + "…"


def _titles(names: list[str]) -> str:
    titles = list(dict.fromkeys(head(name)["title"] for name in names))
    return ", ".join(titles[:2]) + (f" and {len(titles) - 2} more" if len(titles) > 2 else "")
