"""The report of a sweep: the main metrics of every member, missing ones marked, and means over seeds.

A sweep that fits on a page also gets the comparison of its runs.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from eval.registry import SWEEP, shown
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.sweep.monitor import load
from ragaf_exp.sweep.reading import metrics_of
from ragaf_exp.sweep.status import Row
from ragaf_exp.sweep.table import Table, render

COMPARED = 26  # the most members that the comparison of runs can show


def write_sweep_report(home: Path, out: Path | None = None) -> list[Path]:
    """Write sweep.html and, if 2 to 26 members have metrics, comparison.html with its tables.

    Returns the files written; prints to stderr why there is no comparison. Raises UserError if there is no sweep.
    """
    table = load(home)
    metrics = {row.hash: metrics_of(row.path) for row in table.rows}
    path = out or home / "sweep.html"
    names = [name for name in shown(SWEEP) if any(name in of_member for of_member in metrics.values())]
    members = [_member(row, table, metrics[row.hash], names) for row in table.rows]
    write_text(path, render("sweep.html", title=table.title, summary=table.summary, names=names, keys=table.keys,
                            notes=table.notes, members=members, groups=_groups(table, metrics, names)))  # fmt: skip
    measured = [row for row in table.rows if metrics[row.hash]]
    if not 2 <= len(measured) <= COMPARED:
        return [path]
    from ragaf_exp.report import write_comparison  # heavy

    compared = [row.path for row in table.rows if row.path.is_dir()][:COMPARED]
    try:
        return [path, *write_comparison(compared, path.with_name("comparison.html"))]
    except UserError as error:  # the sweep's page has been written
        print(f"no comparison: {error}", file=sys.stderr)
        return [path]


def _member(row: Row, table: Table, metrics: dict[str, Any], names: list[str]) -> dict[str, Any]:
    cells = table.cells(row)
    missing = "" if metrics else row.error or f"no metrics: {row.state}"
    return {"hash": row.hash, "state": row.state, "missing": missing, "differs": [cells[key] for key in table.keys],
            "metrics": [_cell(metrics.get(name)) for name in names]}  # fmt: skip


def _cell(entry: Any) -> str:
    if entry is None:
        return "–"
    interval = entry["ci95"]
    return f"{entry['value']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _groups(table: Table, metrics: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """One row for members that differ only in their seed: mean over seeds with 95 % interval (Student's t)."""
    keys = [key for key in table.keys if key != "seed"]
    if len(keys) == len(table.keys):
        return {"keys": keys, "rows": []}
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in table.rows:
        groups[tuple(row.overrides.get(key, "") for key in keys)].append(row)
    rows = []
    for values, members in groups.items():
        measured = [metrics[row.hash] for row in members if metrics[row.hash]]
        cells = [_mean([entry[name]["value"] for entry in measured if name in entry]) for name in names]
        rows.append({"differs": values, "n": f"{len(measured)} of {len(members)}", "metrics": cells})
    return {"keys": keys, "rows": rows}


def _mean(values: list[float]) -> str:
    if not values:
        return "–"
    from eval.statistics.bootstrap import student_interval  # imports NumPy, which a submission does without

    mean, half = student_interval(values)
    return f"{mean:.3f} ± {half:.3f}" if len(values) > 1 else f"{mean:.3f}"
