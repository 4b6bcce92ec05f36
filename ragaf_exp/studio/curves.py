"""Curves and figures of runs as numbers, which the page draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.registry import CURVE, HEADLINE, shown
from ragaf_exp.report.catalogue import head, ordered, plain
from ragaf_exp.report.run.curves import POINTS, USAGE, title_of
from ragaf_exp.report.run.parse import is_number
from ragaf_exp.report.run.read import RunData
from ragaf_exp.report.study.members import training_steps

Point = list[float]


def headline(metrics: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The headline figures of a run, by the titles of its report."""
    return [{"name": head(name)["title"], "value": metrics[name]["value"]} for name in shown(HEADLINE) if name in metrics]


def metric_rows(metrics: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """All figures of a run, in the order of its report."""
    rank = {name: i for i, name in enumerate(ordered(map(plain, metrics)))}
    rows = []
    for name, entry in sorted(metrics.items(), key=lambda item: (rank[plain(item[0])], item[0])):
        low, high = entry.get("ci95") or (None, None)
        prefix = name.removesuffix(plain(name)).rstrip("/")
        rows.append({"name": head(name)["title"], "of": prefix, "meaning": head(name)["meaning"], "value": entry["value"],
                     "n": entry.get("n"), "low": low, "high": high})  # fmt: skip
    return rows


def curves_of(run: RunData) -> list[dict[str, Any]]:
    """The losses of each stage, its use of the conditions, and the figures of its validations."""
    charts = []
    for stage in run.stages:
        title = title_of(run, stage)
        rows = [row for row in run.log if row["stage"] == stage]
        losses = list(dict.fromkeys(key for row in rows for key in row if key.startswith("loss")))
        charts.append(_chart(f"{title}: loss", {key.removeprefix("loss_"): _points(rows, key) for key in losses}))
        checked = [{"step": row["step"], **row["validation"]} for row in rows if isinstance(row.get("validation"), dict)]
        charts.append(_chart(f"{title}: loss with another item's condition",
                             {label: _points(checked, key) for key, label in USAGE.items()}))  # fmt: skip
        figures = {head(name)["title"]: _points(checked, name) for name in shown(CURVE)}
        charts.append(_chart(f"{title}: validation", figures))
    return [chart for chart in charts if chart["series"]]


def member_curves(members: Sequence[tuple[str, str, RunData]]) -> dict[str, Any]:
    """The headline figures of a study's members, and their validation figures over the steps of all stages.

    Args:
        members: Identity, name in the study and content of each run.
    """
    rows = [{"id": identity, "name": name, "headline": headline(run.metrics)} for identity, name, run in members]
    charts = []
    for metric in shown(CURVE):
        series = {f"{name} ({identity[:4]})": _study_points(run, metric) for identity, name, run in members}
        charts.append(_chart(head(metric)["title"], series))
    return {"rows": rows, "curves": [chart for chart in charts if chart["series"]]}


def _chart(title: str, series: dict[str, list[Point]]) -> dict[str, Any]:
    return {"title": title, "series": [{"name": name, "points": points} for name, points in series.items() if points]}


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[Point]:
    """(step, value) of the rows that have a finite value, thinned."""
    points = [[row["step"], row[key]] for row in rows if is_number(row.get(key))]
    return points[:: -(-len(points) // POINTS) or 1]


def _study_points(run: RunData, metric: str) -> list[Point]:
    rows = zip(training_steps(run.log), run.log, strict=True)
    return [[step, row["validation"][metric]] for step, row in rows if is_number((row.get("validation") or {}).get(metric))]
