"""Writes a comparison of runs: one self-contained HTML file, and its tables in Markdown and LaTeX."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ragaf_exp.core.files import write_text
from ragaf_exp.report.catalogue import head, number
from ragaf_exp.report.compare import paired_runs
from ragaf_exp.report.compare.caveats import caveats, measured_with
from ragaf_exp.report.compare.compare import Cell, Comparison, Row, compare
from ragaf_exp.report.compare.dot_plots import dot_charts
from ragaf_exp.report.compare.runs import Member
from ragaf_exp.report.compare.tables import latex, markdown
from ragaf_exp.report.render import render
from ragaf_exp.report.run.tables import cell as as_text
from ragaf_exp.report.run.tables import last_stage

LISTED = 2  # settings that are named as a run's differences to the first


def write_comparison(
    runs: Sequence[str | Path], out: Path | None = None, tables: Path | None = None, common: bool = False
) -> list[Path]:
    """Compare run folders, or those in sweep folders.

    Args:
        runs: Folders of runs or sweeps.
        out: The page, by default comparison.html in the common parent of all runs.
        tables: Folder of the tables, created if missing; by default the page's.
        common: Whether to compare the common items of all runs only.

    Returns:
        Paths of the page and of its tables as .md and .tex, which have the page's name.

    Raises:
        UserError: As `ragaf_exp.report.compare.compare.compare` does.
    """
    comparison = compare([str(run) for run in runs], common)
    page = out or _common_folder(comparison) / "comparison.html"
    target = tables or page.parent
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
    content = {page: render("comparison.html", _content(comparison, common))}
    content |= {target / f"{page.stem}.md": markdown(comparison), target / f"{page.stem}.tex": latex(comparison)}
    for path, text in content.items():
        write_text(path, text)
    return list(content)


def _common_folder(comparison: Comparison) -> Path:
    return Path(os.path.commonpath([member.path.parent for member in comparison.all_runs]))


def _content(comparison: Comparison, common: bool) -> dict[str, Any]:
    """The template's variables."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in comparison.rows:
        groups.setdefault(row.group, []).append(_row(row))
    first = comparison.members[0]
    return {
        "title": f"{len(comparison.members)} runs compared",
        "first": first.letter,
        "items": comparison.items,
        "members": [_member(member, comparison) for member in comparison.all_runs],
        "missing": len(comparison.missing),
        "letters": [member.letter for member in comparison.members],
        "groups": [{"title": title, "rows": rows} for title, rows in groups.items()],
        "notes": caveats(comparison),
        "measured_with": measured_with(comparison),
        "charts": [Markup(svg) for svg in dot_charts(comparison)],
        "pictures": paired_runs.titles([member.letter for member in comparison.members]),
        "scenes": paired_runs.grid_rows(comparison),
        "settings": comparison.settings,
        "environment": comparison.environment,
        "command": _command(comparison.all_runs, common),
    }


def _member(member: Member, comparison: Comparison) -> dict[str, Any]:
    shown = {"letter": member.letter, "name": member.name, "missing": member.missing, "stage": "", "differs": ""}
    shown["state"] = member.run.status.get("state", "unknown") if member.run else "not begun"
    if not member.missing:
        index = comparison.members.index(member)
        settings = [(key, values[index]) for key, values in comparison.settings if values[index] != values[0]]
        listed = [f"{key}={value}" for key, value in settings[:LISTED]]
        more = [f"and {len(settings) - LISTED} more"] if len(settings) > LISTED else []
        shown["stage"] = last_stage(member.run)
        shown["differs"] = ", ".join(listed + more) if index else "the first: others are held against it"
    return shown


def _row(row: Row) -> dict[str, Any]:
    cells = [_cell(row, cell) if cell else None for cell in row.cells]
    n, warnings = (list(dict.fromkeys(c[key] for c in cells if c and c[key])) for key in ("n", "warning"))
    return {**head(row.name), "better": row.better, "cells": cells, "n": " / ".join(n), "warnings": warnings}


def _cell(row: Row, cell: Cell) -> dict[str, Any]:
    shown = as_text(row.name, cell.entry) | {"note": cell.note, "difference": None}
    if cell.gap is not None:
        shown["difference"] = {"value": _signed(row.name, cell.gap), "interval": "", "mark": ""}
    if cell.difference is not None:
        d = cell.difference
        low, high = (_signed(row.name, v, unit=False) for v in (d.low, d.high))
        mark = "" if not d.clear else "clear" if row.better is None else ["down", "up"][(d.value > 0) == row.better]
        shown["difference"] = {"value": _signed(row.name, d.value), "interval": f"[{low}, {high}]", "mark": mark}
    return shown


def _signed(name: str, value: float, unit: bool = True) -> str:
    return number(name, value, unit, sign=True).replace("-", "−")


def _command(members: list[Member], common: bool) -> str:
    runs = ",".join(member.short_path for member in members)
    command = ["python", "-m", "ragaf_exp.report", f"runs=[{runs}]", *(["items=common"] if common else [])]
    return shlex.join(command)
