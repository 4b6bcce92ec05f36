"""Several runs side by side: every figure of each, and its difference to the first run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.items import ItemRow, figure_of, numbers
from eval.statistics.bootstrap import Estimate
from eval.statistics.paired import paired_differences, shared_items
from ragaf_exp.core.errors import UserError
from ragaf_exp.report.catalogue import FIRST, base, better, metric, ordered, plain
from ragaf_exp.report.compare.comparable import measured_differently, refuse_unlike, sizes_differ
from ragaf_exp.report.compare.runs import Member, read_members

ENVIRONMENT = ("ragaf_exp", "commit", "python", "device")


@dataclass
class Cell:
    """One run's figure."""

    entry: dict[str, Any]  # as in metrics.json
    difference: Estimate | None = None  # to the first run's, paired
    gap: float | None = None  # the same without an interval, where items can't be paired
    note: str = ""  # why there is neither


@dataclass
class Row:
    """One figure of all runs; None where a run lacks it."""

    name: str
    group: str
    better: bool | None
    cells: list[Cell | None]


@dataclass
class Comparison:
    """All that a comparison shows."""

    members: list[Member]  # those with figures; differences are to the first
    missing: list[Member]
    rows: list[Row]
    items: int | None  # that differences are paired on; None where no two runs' can be
    settings: list[tuple[str, list[str]]]  # keys that differ, and each run's value
    environment: list[tuple[str, list[str]]]
    common: bool  # figures are of the items that all share, and not those of metrics.json

    @property
    def everyone(self) -> list[Member]:
        """All runs in the order named."""
        return sorted((*self.members, *self.missing), key=lambda member: (len(member.letter), member.letter))


def compare(named: list[str], common: bool = False) -> Comparison:
    """Read and compare runs, or those of sweep folders. common: on the items that all of them share.

    UserError where fewer than two have figures, where they were not measured alike, and for a damaged file.
    """
    everyone = read_members(named)
    members = [m for m in everyone if not m.missing]
    missing = [m for m in everyone if m.missing]
    if len(members) < 2:
        lacking = "".join(f"; {m.name}: {m.missing}" for m in missing[:3])
        raise UserError(f"runs=[{','.join(named)}]: {len(members)} run with figures, a comparison needs two{lacking}")
    refuse_unlike(members, common)
    with_items = [m for m in members if m.rows is not None]
    tables = dict(zip([m.letter for m in with_items], _aligned(with_items, common), strict=True))
    common = common and (sizes_differ(members) or any(len(m.rows) > len(tables[m.letter]) for m in members))
    rows = [_row(name, members, tables, common) for name in _names(members)]
    rows = [row for row in rows if any(row.cells)]
    paired = members[0].letter in tables and len(tables) > 1
    settings = _differing([m.settings for m in members])
    environment = _differing([{k: m.run.environment.get(k) for k in ENVIRONMENT} for m in members])
    items = len(tables[members[0].letter]) if paired else None
    return Comparison(members, missing, rows, items, settings, environment, common)


def _aligned(members: list[Member], common: bool) -> list[list[ItemRow]]:
    if not members:
        return []
    try:
        return shared_items([m.rows for m in members], common)
    except ValueError as error:  # pairs may share items that not all of them share
        raise UserError(f"{', '.join(m.name for m in members)}: {error}; name fewer runs") from error


def _names(members: list[Member]) -> list[str]:
    """Names of all figures, those of the last stage first."""
    there = list(dict.fromkeys(name for m in members for name in m.run.metrics))
    last = ordered(name for name in there if not name.startswith(FIRST))
    return last + [FIRST + name for name in ordered(plain(n) for n in there if n.startswith(FIRST))]


def _row(name: str, members: list[Member], tables: dict[str, list[ItemRow]], common: bool) -> Row:
    having = [m for m in members if name in m.run.metrics]
    scored = {m.letter: tables[m.letter] for m in having if _holds(tables.get(m.letter, []), name)}
    if common:
        scored = _scored_by_all(scored, name)
        having = [m for m in having if m.letter in scored]
    cells = {m.letter: Cell(_entry(name, m, scored[m.letter]) if common else m.run.metrics[name]) for m in having}
    if having and having[0] is members[0]:
        _subtract(name, having, cells, scored, common)
    sense = next((better(name, cell.entry) for cell in cells.values()), None)
    group = "Stage 1" if name.startswith(FIRST) else metric(base(name)).group
    return Row(name, group, sense, [cells.get(m.letter) for m in members])


def _holds(rows: list[ItemRow], name: str) -> bool:
    return any(numbers(row.values.get(name)) for row in rows)


def _scored_by_all(tables: dict[str, list[ItemRow]], name: str) -> dict[str, list[ItemRow]]:
    """The tables without the items that one of them has no value for; none where nothing is left."""
    kept = [i for i, rows in enumerate(zip(*tables.values(), strict=True)) if all(_holds([r], name) for r in rows)]
    return {letter: [rows[i] for i in kept] for letter, rows in tables.items()} if kept else {}


def _entry(name: str, member: Member, rows: list[ItemRow]) -> dict[str, Any]:
    """The figure on the common items, with what it was measured with."""
    known = member.run.metrics[name]
    return known | figure_of(rows, name, higher_is_better=known.get("higher_is_better"))


def _subtract(
    name: str, having: list[Member], cells: dict[str, Cell], scored: dict[str, list[ItemRow]], common: bool
) -> None:
    """Fill in the differences to the first run, which has the figure."""
    first = having[0]
    for other in having[1:]:
        cell = cells[other.letter]
        cell.note = measured_differently(name, first, other, common)
        if cell.note:
            continue
        if first.letter not in scored or other.letter not in scored:
            cell.gap = cell.entry["value"] - cells[first.letter].entry["value"]
            continue
        values = [[row.values.get(name) for row in scored[m.letter]] for m in (first, other)]
        try:
            (cell.difference,) = paired_differences(values)  # one seed: the same items are drawn for every run
        except ValueError as error:
            raise UserError(f"{first.name} and {other.name}: {name}: {error}; add items=common") from error


def _differing(contents: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Keys whose value is not the same in all, and the values as text."""
    keys = dict.fromkeys(key for content in contents for key in content)
    found = [(key, [_text(content.get(key)) for content in contents]) for key in keys]
    return [(key, values) for key, values in found if len(set(values)) > 1]


def _text(value: Any) -> str:
    """A setting as YAML has it, of a _target_ the class."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith("ragaf_exp."):
        return value.rpartition(".")[2]
    return "–" if value is None else str(value)
