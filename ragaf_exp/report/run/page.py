"""Writes a run's figures, charts and pictures to one self-contained HTML file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ragaf_exp.core.files import write_text
from ragaf_exp.report.render import render
from ragaf_exp.report.run import curves, pictures, tables
from ragaf_exp.report.run.parse import is_number
from ragaf_exp.report.run.read import RunData, read_run


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder to `out`, by default its report.html, and return the path.

    It depends on the run's own files only, so it can be written again at any time. Raises UserError if one of them is
    missing or damaged.
    """
    run = read_run(Path(run_dir))
    path = out or run.path / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render("report.html", _content(run)))
    return path


def _content(run: RunData) -> dict[str, Any]:
    """The template's variables. Only charts, which this package draws, are unescaped."""
    return {
        "title": f"{run.path.parent.name} / {run.path.name}",
        "state": run.status.get("state", "unknown"),
        "error": run.status.get("error"),
        "facts": _facts(run),
        "notes": run.notes,
        "warnings": run.warnings,
        "cards": tables.cards(run),
        "stages": [title for title, _ in tables.stage_columns(run)],
        "groups": tables.table(run),
        "difficulty": tables.difficulty(run),
        "counted": tables.counted(run),
        "measured_with": tables.measured_with(run.metrics),
        "judged": run.judged,
        "losses": [Markup(svg) for svg in curves.loss_charts(run)],
        "usages": [Markup(svg) for svg in curves.usage_charts(run)],
        "ratios": curves.usage_ratios(run),
        "fusion": Markup(curves.fusion_chart(run)) if run.fusion else None,
        "pictures": list(pictures.scene_columns(run).values()),
        "scenes": pictures.scene_rows(run),
        "maps": pictures.attention_maps(run),
        "steps": pictures.attention_steps(run),
        "grids": pictures.validation_grids(run),
        "stage_names": {name: curves.title_of(run, name) for name in run.titles},
        "commands": _commands(run),
        "config": run.config,
        "environment": json.dumps(run.environment, indent=2),
    }


def _facts(run: RunData) -> list[tuple[str, str]]:
    """Key facts: steps and speed of each stage, device, commit and version."""
    facts = []
    for stage in run.stages:
        rows = [row for row in run.log if row["stage"] == stage]
        rates = sorted(row["rate"] for row in rows if is_number(row.get("rate")))
        steps = f"{max(row['step'] for row in rows):,} steps"
        speed = f", {rates[len(rates) // 2]:.3g} a second" if rates else ""
        facts.append((curves.title_of(run, stage), steps + speed))
    for title, key, length in (
        ("Device", "device", 48),
        ("Commit", "commit", 12),
        ("Version", "ragaf_exp", 24),
    ):
        if run.environment.get(key):
            facts.append((title, str(run.environment[key])[:length]))
    return facts


def _commands(run: RunData) -> list[tuple[str, str]]:
    """Commands that reproduce this run, and that evaluate, report and sample it."""
    where = shlex.quote("/".join(run.path.parts[-3:]))
    commands = []
    made_by = run.environment.get("command")
    if isinstance(made_by, list) and made_by:
        commands.append(("train again", shlex.join(["python", "-m", "ragaf_exp.run", *map(str, made_by[1:])])))
    return [
        *commands,
        ("evaluate again", f"python -m eval run={where}"),
        ("write this page again", f"python -m ragaf_exp.report run={where}"),
        ("sample", f"python -m ragaf_exp.sample run={where} sketch=FILE 'prompt=\"…\"' out=DIR"),
    ]
