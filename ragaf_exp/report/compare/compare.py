"""Compares runs: every figure of each run, and its difference to the first run's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.items import ItemRow, figure_of, numbers
from eval.statistics.bootstrap import Estimate
from eval.statistics.paired import paired_differences, shared_items
from ragaf_exp.core.errors import UserError
from ragaf_exp.report.catalogue import base, better, metric, ordered, plain, stage_prefixes
from ragaf_exp.report.compare.comparable import check_comparable, measured_differently, sizes_differ
from ragaf_exp.report.compare.runs import Member, read_members

ENVIRONMENT = ("ragaf_exp", "commit", "python", "device")


@dataclass
class Cell:
    """One run's figure."""

    entry: dict[str, Any]  # as in metrics.json
    difference: Estimate | None = None  # to the first run's, paired
    gap: float | None = None  # the difference without an interval, if items can't be paired
    note: str = ""  # the reason why there is neither


@dataclass
class Row:
    """One figure of all runs; None for a run that lacks it."""

    name: str
    group: str
    better: bool | None
    cells: list[Cell | None]


@dataclass
class Comparison:
    """The content of a comparison."""

    members: list[Member]  # runs with figures; differences are to the first
    missing: list[Member]
    rows: list[Row]
    items: int | None  # number of items that differences are paired on; None if no two runs can be paired
    settings: list[tuple[str, list[str]]]  # keys that differ, and each run's value
    environment: list[tuple[str, list[str]]]
    common: bool  # figures are of the common items, and not those of metrics.json

    @property
    def all_runs(self) -> list[Member]:
        """All runs in the order named."""
        return sorted((*self.members, *self.missing), key=lambda member: (len(member.letter), member.letter))


def compare(named: list[str], common: bool = False) -> Comparison:
    """Read and compare runs, or those of sweep folders; with `common` on the items of all runs only.

    Raises UserError if fewer than two have figures, if they were measured differently, and for a damaged file.
    """
    all_runs = read_members(named)
    members = [m for m in all_runs if not m.missing]
    missing = [m for m in all_runs if m.missing]
    if len(members) < 2:
        lacking = "".join(f"; {m.name}: {m.missing}" for m in missing[:3])
        raise UserError(f"runs=[{','.join(named)}]: {len(members)} run with figures, a comparison needs two{lacking}")
    check_comparable(members, common)
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
    """Names of all figures, the last stage's first."""
    names = list(dict.fromkeys(name for m in members for name in m.run.metrics))
    earlier = stage_prefixes(names)
    last = ordered(name for name in names if not name.startswith(tuple(earlier)))
    return last + [prefix + name for prefix in earlier for name in ordered(plain(n) for n in names if n.startswith(prefix))]


def _row(name: str, members: list[Member], tables: dict[str, list[ItemRow]], common: bool) -> Row:
    with_figure = [m for m in members if name in m.run.metrics]
    scored = {m.letter: tables[m.letter] for m in with_figure if _holds(tables.get(m.letter, []), name)}
    if common:
        scored = _scored_by_all(scored, name)
        with_figure = [m for m in with_figure if m.letter in scored]
    cells = {m.letter: Cell(_entry(name, m, scored[m.letter]) if common else m.run.metrics[name]) for m in with_figure}
    if with_figure and with_figure[0] is members[0]:
        _subtract(name, with_figure, cells, scored, common)
    sense = next((better(name, cell.entry) for cell in cells.values()), None)
    group = next(iter(stage_prefixes([name]).values()), metric(base(name)).group)
    return Row(name, group, sense, [cells.get(m.letter) for m in members])


def _holds(rows: list[ItemRow], name: str) -> bool:
    return any(numbers(row.values.get(name)) for row in rows)


def _scored_by_all(tables: dict[str, list[ItemRow]], name: str) -> dict[str, list[ItemRow]]:
    """The tables without the items that some table has no value for; empty if no item is left."""
    indices = [i for i, rows in enumerate(zip(*tables.values(), strict=True)) if all(_holds([r], name) for r in rows)]
    return {letter: [rows[i] for i in indices] for letter, rows in tables.items()} if indices else {}


def _entry(name: str, member: Member, rows: list[ItemRow]) -> dict[str, Any]:
    """The figure on the common items, with the facts recorded with it."""
    known = member.run.metrics[name]
    return known | figure_of(rows, name, higher_is_better=known.get("higher_is_better"))


def _subtract(
    name: str, with_figure: list[Member], cells: dict[str, Cell], scored: dict[str, list[ItemRow]], common: bool
) -> None:
    """Fill in the differences of a figure to the first run."""
    first = with_figure[0]
    for other in with_figure[1:]:
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
    """Keys whose values differ, and the values as text."""
    keys = dict.fromkeys(key for content in contents for key in content)
    texts = [(key, [_text(content.get(key)) for content in contents]) for key in keys]
    return [(key, values) for key, values in texts if len(set(values)) > 1]


def _text(value: Any) -> str:
    """A setting as in YAML; only the class of a _target_."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith("ragaf_exp."):
        return value.rpartition(".")[2]
    return "–" if value is None else str(value)
