"""Writes a comparison of runs: one HTML file that needs no other, and its tables in Markdown and LaTeX."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ragaf_exp.core.files import write_text
from ragaf_exp.report.catalogue import head, number
from ragaf_exp.report.compare import side_by_side
from ragaf_exp.report.compare.compare import Cell, Comparison, Row, compare
from ragaf_exp.report.compare.dot_plots import dot_charts
from ragaf_exp.report.compare.notes import measured_with, notes
from ragaf_exp.report.compare.runs import Member
from ragaf_exp.report.compare.tables import latex, markdown
from ragaf_exp.report.render import render
from ragaf_exp.report.run.tables import cell as as_text
from ragaf_exp.report.run.tables import last_stage

TOLD = 2  # settings by which a run is told from the first beside its letter


def write_comparison(
    runs: Sequence[str | Path], out: Path | None = None, tables: Path | None = None, common: bool = False
) -> list[Path]:
    """Compare run folders, or those in sweep folders, and return what was written: the page, its tables as .md and .tex.

    out: by default comparison.html in the folder that holds all runs. tables: the folder of the two tables, made where
    it is missing, by default the page's; they have the page's name. common: compare the items that all runs share.
    Raises UserError as `ragaf_exp.report.compare.compare.compare` does.
    """
    found = compare([str(run) for run in runs], common)
    page = out or _home(found) / "comparison.html"
    beside = tables or page.parent
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
    content = {page: render("comparison.html", _content(found, common))}
    content |= {beside / f"{page.stem}.md": markdown(found), beside / f"{page.stem}.tex": latex(found)}
    for path, text in content.items():
        write_text(path, text)
    return list(content)


def _home(found: Comparison) -> Path:
    return Path(os.path.commonpath([member.path.parent for member in found.everyone]))


def _content(found: Comparison, common: bool) -> dict[str, Any]:
    """Everything that the template names."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in found.rows:
        groups.setdefault(row.group, []).append(_row(row))
    first = found.members[0]
    return {
        "title": f"{len(found.members)} runs compared",
        "first": first.letter,
        "items": found.items,
        "members": [_member(member, found) for member in found.everyone],
        "missing": len(found.missing),
        "letters": [member.letter for member in found.members],
        "groups": [{"title": title, "rows": rows} for title, rows in groups.items()],
        "notes": notes(found),
        "measured_with": measured_with(found),
        "charts": [Markup(svg) for svg in dot_charts(found)],
        "pictures": side_by_side.titles([member.letter for member in found.members]),
        "scenes": side_by_side.grid_rows(found),
        "settings": found.settings,
        "environment": found.environment,
        "command": _command(found.everyone, common),
    }


def _member(member: Member, found: Comparison) -> dict[str, Any]:
    shown = {"letter": member.letter, "name": member.name, "missing": member.missing, "stage": "", "differs": ""}
    shown["state"] = member.run.status.get("state", "unknown") if member.run else "not begun"
    if not member.missing:
        place = found.members.index(member)
        settings = [(key, values[place]) for key, values in found.settings if values[place] != values[0]]
        told = [f"{key}={value}" for key, value in settings[:TOLD]]
        more = [f"and {len(settings) - TOLD} more"] if len(settings) > TOLD else []
        shown["stage"] = last_stage(member.run)
        shown["differs"] = ", ".join(told + more) if place else "the first: others are held against it"
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
    runs = ",".join(member.place for member in members)
    words = ["python", "-m", "ragaf_exp.report", f"runs=[{runs}]", *(["items=common"] if common else [])]
    return shlex.join(words)
