"""Caveats that a reader of a comparison must know to interpret its table."""

from __future__ import annotations

from ragaf_exp.report.catalogue import head
from ragaf_exp.report.compare.comparable import sketches_differ
from ragaf_exp.report.compare.compare import Comparison
from ragaf_exp.report.run import tables


def caveats(comparison: Comparison) -> list[str]:
    """Caveats of a comparison, one sentence each."""
    return [*_items(comparison), *_samples(comparison), *_not_compared(comparison), *_by_chance(comparison)]


def measured_with(comparison: Comparison) -> tables.Conditions:
    """The measurement conditions that are equal in all runs."""
    first, *others = comparison.members
    shared = {
        name: {k: v for k, v in entry.items() if all(m.run.metrics.get(name, entry).get(k) == v for m in others)}
        for name, entry in first.run.metrics.items()
    }
    return tables.measured_with(shared)


def _items(comparison: Comparison) -> list[str]:
    sentences = []
    if comparison.common:
        sentences.append(
            f"Figures are of the {comparison.items} common items of all runs, not those of each run's metrics.json."
        )
        listed = {row.name for row in comparison.rows}
        left_out = sorted({name for m in comparison.members for name in m.run.metrics} - listed)
        if left_out:
            sentences.append(f"Left out, as they are of a whole set of images: {_titles(left_out)}.")
    for member in (m for m in comparison.members if m.rows is None):
        sentences.append(
            f"{member.letter} has no items.jsonl, so differences to or from it have no interval; "
            f"python -m eval run={member.short_path} writes it."
        )
    return sentences


def _samples(comparison: Comparison) -> list[str]:
    sentences = []
    entries = [entry for m in comparison.members for entry in m.run.metrics.values()]
    seeds = sorted({str(entry["seed"]) for entry in entries if "seed" in entry})
    if len(seeds) > 1:
        sentences.append(f"Samples start from different noise, with the seeds {', '.join(seeds)}.")
    stages = {m.letter: tables.last_stage(m.run) for m in comparison.members}
    if len(set(stages.values())) > 1:
        of = ", ".join(f"{stage.lower()} of {letter}" for letter, stage in stages.items())
        sentences.append(f"Figures are of each run's last stage: {of}.")
    return sentences


def _not_compared(comparison: Comparison) -> list[str]:
    sentences = []
    first, *others = comparison.members
    if changed := [m.letter for m in others if sketches_differ(first, m)]:
        letters = ", ".join(changed)
        sentences.append(
            f"{letters} used other sketches than {first.letter}: figures against the sketch are not compared."
        )
    whole = [row.name for row in comparison.rows if any(cell and cell.gap is not None for cell in row.cells)]
    if whole and all(m.rows is not None for m in comparison.members):
        sentences.append(f"Figures of a whole set of images, whose items can't be paired: {_titles(whole)}.")
    reasons: dict[str, dict[str, list[str]]] = {}  # reason -> metric -> letters of runs
    for member in comparison.members:
        for name, reason in member.run.unavailable.items():
            reasons.setdefault(reason, {}).setdefault(name, []).append(member.letter)
    for reason, names in reasons.items():
        runs = sorted({letter for letters in names.values() for letter in letters}, key=lambda x: (len(x), x))
        sentences.append(f"Not measured in {', '.join(runs)}: {_titles(list(names))}. {reason}")
    return sentences


def _by_chance(comparison: Comparison) -> list[str]:
    tried = [cell.difference for row in comparison.rows for cell in row.cells if cell and cell.difference]
    if not tried:
        return []
    clear = sum(difference.clear for difference in tried)
    return [
        f"{clear} of {len(tried)} differences have 0 outside their interval; "
        "without any true difference, about one in twenty would."
    ]


def _titles(names: list[str]) -> str:
    return " · ".join(dict.fromkeys(head(name)["title"] for name in names))
