"""What a reader of a comparison must know to take its table rightly."""

from __future__ import annotations

from ragaf_exp.report.catalogue import head
from ragaf_exp.report.compare.comparable import other_sketches
from ragaf_exp.report.compare.compare import Comparison
from ragaf_exp.report.run import tables


def notes(found: Comparison) -> list[str]:
    """One sentence each; none where there is nothing to say."""
    return [*_items(found), *_samples(found), *_not_compared(found), *_by_chance(found)]


def measured_with(found: Comparison) -> tables.Conditions:
    """What the figures of all runs were measured with."""
    first, *others = found.members
    shared = {
        name: {k: v for k, v in entry.items() if all(m.run.metrics.get(name, entry).get(k) == v for m in others)}
        for name, entry in first.run.metrics.items()
    }
    return tables.measured_with(shared)


def _items(found: Comparison) -> list[str]:
    told = []
    if found.common:
        told.append(f"Figures are of the {found.items} items that all runs share, not those of each run's metrics.json.")
        kept = {row.name for row in found.rows}
        gone = sorted({name for m in found.members for name in m.run.metrics} - kept)
        if gone:
            told.append(f"Left out, as they are of a whole set of images: {_titles(gone)}.")
    for member in (m for m in found.members if m.rows is None):
        told.append(
            f"{member.letter} has no items.jsonl, so differences to or from it have no interval; "
            f"python -m eval run={member.place} writes it."
        )
    return told


def _samples(found: Comparison) -> list[str]:
    told = []
    entries = [entry for m in found.members for entry in m.run.metrics.values()]
    seeds = sorted({str(entry["seed"]) for entry in entries if "seed" in entry})
    if len(seeds) > 1:
        told.append(f"Samples were drawn from different noise, with the seeds {', '.join(seeds)}.")
    stages = {m.letter: tables.last_stage(m.run) for m in found.members}
    if len(set(stages.values())) > 1:
        of = ", ".join(f"{stage.lower()} of {letter}" for letter, stage in stages.items())
        told.append(f"Figures are of each run's last stage: {of}.")
    return told


def _not_compared(found: Comparison) -> list[str]:
    told = []
    first, *others = found.members
    if changed := [m.letter for m in others if other_sketches(first, m)]:
        who = ", ".join(changed)
        told.append(f"{who} followed other sketches than {first.letter}: figures against the sketch are not compared.")
    whole = [row.name for row in found.rows if any(cell and cell.gap is not None for cell in row.cells)]
    if whole and all(m.rows is not None for m in found.members):
        told.append(f"Of a whole set of images, so that no items can be paired: {_titles(whole)}.")
    reasons: dict[str, dict[str, list[str]]] = {}  # why -> what -> in which runs
    for member in found.members:
        for name, reason in member.run.unavailable.items():
            reasons.setdefault(reason, {}).setdefault(name, []).append(member.letter)
    for reason, names in reasons.items():
        who = sorted({letter for letters in names.values() for letter in letters}, key=lambda x: (len(x), x))
        told.append(f"Not measured in {', '.join(who)}: {_titles(list(names))}. {reason}")
    return told


def _by_chance(found: Comparison) -> list[str]:
    tried = [cell.difference for row in found.rows for cell in row.cells if cell and cell.difference]
    if not tried:
        return []
    clear = sum(difference.clear for difference in tried)
    return [
        f"{clear} of {len(tried)} differences have 0 outside their interval; "
        "where nothing differs, about one in twenty has."
    ]


def _titles(names: list[str]) -> str:
    return " · ".join(dict.fromkeys(head(name)["title"] for name in names))
