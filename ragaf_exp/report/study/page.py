"""The report of a study: figures of its members, differences to full and baseline, curves, and images of the same items.

Intervals are over seeds and items.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from omegaconf import OmegaConf

from eval.registry import RATIO, STUDY, higher_is_better, shown
from eval.statistics.crossed import Scores, SeedEstimate, difference, mean, ratio
from ragaf_exp.config.compose import load_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.core.markdown import bullets, escape
from ragaf_exp.core.markdown import table as markdown_table
from ragaf_exp.report.catalogue import head, number
from ragaf_exp.report.compare import paired_runs
from ragaf_exp.report.compare.comparable import check_comparable
from ragaf_exp.report.compare.runs import Member, find_folders, read_members
from ragaf_exp.report.compare.tables import ARROWS
from ragaf_exp.report.render import render
from ragaf_exp.report.study.curves import learning_charts, learning_picture
from ragaf_exp.report.study.members import BASELINE, FULL, Group, group, named, study_name


@dataclass
class Table:
    """Members as rows, figures as columns; a cell without an estimate is None."""

    title: str
    signed: bool  # whether cells are differences
    rows: list[tuple[Group, list[SeedEstimate | None]]]


def is_study(runs: Sequence[str | Path]) -> bool:
    """Whether the first of the runs is a member of a study."""
    folders = [path for path in find_folders([str(run) for run in runs]) if (path / "config.yaml").is_file()]
    return bool(folders) and bool(study_name(OmegaConf.to_container(load_config(folders[0] / "config.yaml"))))


def write_study(
    runs: Sequence[str | Path], out: Path | None = None, tables: Path | None = None, common: bool = False
) -> list[Path]:
    """Write the report of a study's run folders, or of those in sweep folders.

    Args:
        runs: Folders of runs or sweeps.
        out: The page, by default comparison.html in the common parent of all runs.
        tables: Folder of the Markdown tables and pictures, created if missing; by default the page's.
        common: Whether to compare the common items of all runs only.

    Returns:
        Paths of the page, of its tables in Markdown, and of the pictures.

    Raises:
        UserError: If fewer than two members have figures, if they are not comparable, and for a damaged file.
    """
    all_runs = read_members([str(run) for run in runs])
    members = [m for m in all_runs if not m.missing and m.rows is not None]
    missing = [m for m in all_runs if m not in members]
    groups = group(members)
    if len(groups) < 2:
        raise UserError(f"runs=[{','.join(map(str, runs))}]: {len(groups)} member with figures, a study needs two")
    check_comparable(members, common)
    page = out or Path(os.path.commonpath([member.path.parent for member in all_runs])) / "comparison.html"
    tables_folder = tables or page.parent
    tables_folder.mkdir(parents=True, exist_ok=True)
    study = study_tables(groups)
    lines = caveats(groups, missing)
    write_text(page, render("study.html", _content(study, groups, lines, all_runs, common)))
    write_text(tables_folder / f"{page.stem}.md", markdown(study, lines))
    pictures = [paired_runs.save_grid(tables_folder / f"{page.stem}.png", [(g.name, g.runs[0]) for g in groups]),
                learning_picture(tables_folder / f"{page.stem}-curves.png", _references(groups) or groups)]  # fmt: skip
    return [page, tables_folder / f"{page.stem}.md", *(path for path in pictures if path is not None)]


def columns(groups: list[Group]) -> list[str]:
    """The figures that at least two members have."""
    return [name for name in shown(STUDY) if sum(g.scores(name) is not None for g in groups) > 1]


def study_tables(groups: list[Group]) -> list[Table]:
    """Figures of all members, and their differences to full and to baseline."""
    names = columns(groups)
    known = {g.name: [g.scores(name) for name in names] for g in groups}
    tables = [Table("Figures", False, [(g, [s and mean(s) for s in known[g.name]]) for g in groups])]
    for reference in _references(groups):
        rows = [(g, list(map(_difference, known[g.name], known[reference.name]))) for g in groups if g is not reference]
        tables.append(Table(f"Differences to {reference.name}", True, rows))
    return tables


def _difference(of: Scores | None, reference: Scores | None) -> SeedEstimate | None:
    return None if of is None or reference is None else difference(of, reference)


def _references(groups: list[Group]) -> list[Group]:
    return [g for g in groups if g.name in (FULL, BASELINE)] or groups[:1]


def caveats(groups: list[Group], missing: list[Member]) -> list[str]:
    """Caveats that a reader must know to interpret the tables, and the members without figures."""
    sentences = [
        "Intervals are 95 %, by a bootstrap that resamples both seeds and items. Those of members with one seed are over "
        "items only and do not cover the variation between seeds. Three seeds are few: intervals over them tend to be too "
        "narrow.",
        "Differences are paired, over the seeds and items that both members have. Bold: 0 lies outside the interval. "
        "There is no correction for multiple comparisons.",
    ]
    by_name = {g.name: g for g in groups}
    if FULL in by_name and BASELINE in by_name:
        full, baseline = by_name[FULL], by_name[BASELINE]
        sentences.append(f"Training took {full.seconds:.0f} s for full and {baseline.seconds:.0f} s for baseline, stage 1 "
                    f"included ({baseline.seconds / max(full.seconds, 1e-9):.2f} times).")  # fmt: skip
        for name in shown(RATIO):
            pair = full.scores(name), baseline.scores(name)
            estimate = ratio(*pair) if all(pair) else None
            if estimate is not None:
                sentences.append(f"{head(name)['title']} of full over that of baseline: {estimate.value:.2f} "
                            f"[{estimate.low:.2f}, {estimate.high:.2f}].")  # fmt: skip
    return sentences + [f"Missing: {named(m) or m.name}: {m.missing or 'items.jsonl is not there'}." for m in missing]


def text(name: str, of: SeedEstimate | None, signed: bool) -> tuple[str, str]:
    """An estimate and its interval as text.

    Args:
        name: Of the figure.
        of: The estimate; None for none.
        signed: Whether it is a difference.
    """
    if of is None:
        return "–", ""
    low, high = (number(name, v, unit=False, sign=signed) for v in (of.low, of.high))
    return number(name, of.value, sign=signed), f"[{low}, {high}]"


def facts(of: Group) -> list[str]:
    """Seeds, training time and size of a member."""
    size = of.parameters
    return [str(len(of.runs)), f"{of.seconds:.0f} s", "–" if size is None else f"{size / 1e6:.2f} M"]


FACTS = ("seeds", "training", "parameters")


def markdown(tables: list[Table], lines: list[str]) -> str:
    """Tables and caveats in GitHub's Markdown."""
    parts = []
    for table in tables:
        names = columns([of for of, _ in tables[0].rows])
        titles = [f"{head(n)['title']} {ARROWS[higher_is_better(n)][0]}" for n in names]
        extra = list(FACTS) if not table.signed else ["seeds"]
        body = []
        for of, cells in table.rows:
            texts = [_cell(name, cell, table.signed) for name, cell in zip(names, cells, strict=True)]
            seeds = facts(of) if not table.signed else [str(max((c.seeds for c in cells if c), default=0))]
            body.append([escape(of.name), *texts, *seeds])
        parts.append(f"## {table.title}\n\n{markdown_table(['member', *titles, *extra], body)}")
    return "\n\n".join([*parts, bullets(lines)]) + "\n"


def _cell(name: str, of: SeedEstimate | None, signed: bool) -> str:
    value, interval = map(escape, text(name, of, signed))
    return f"**{value}** {interval}" if signed and of is not None and of.clear else f"{value} {interval}".strip()


def _content(
    tables: list[Table], groups: list[Group], lines: list[str], all_runs: list[Member], common: bool
) -> dict[str, Any]:  # fmt: skip
    names = columns(groups)
    blocks = [{"title": table.title, "facts": FACTS if not table.signed else (),
               "rows": [_row(of, cells, names, table.signed) for of, cells in table.rows]} for table in tables]  # fmt: skip
    first = [g.runs[0] for g in groups]
    command = ["python", "-m", "ragaf_exp.report", f"runs=[{','.join(m.short_path for m in all_runs)}]"]
    return {
        "title": f"{len(groups)} members, {sum(len(g.runs) for g in groups)} runs",
        "columns": [{"title": head(name)["title"], "better": higher_is_better(name)} for name in names],
        "tables": blocks,
        "notes": lines,
        "charts": [Markup(svg) for svg in learning_charts(_references(groups))],
        "pictures": paired_runs.titles([g.name for g in groups]),
        "scenes": paired_runs.scene_grid(first),
        "command": shlex.join(command + (["items=common"] if common else [])),
    }  # fmt: skip


def _row(of: Group, cells: list[SeedEstimate | None], names: list[str], signed: bool) -> dict[str, Any]:
    texts = []
    for name, cell in zip(names, cells, strict=True):
        value, interval = text(name, cell, signed)
        known = signed and cell is not None and cell.clear
        mark = ["down", "up"][(cell.value > 0) == higher_is_better(name)] if known else ""
        texts.append({"value": value, "interval": interval, "mark": mark})
    return {"name": of.name, "cells": texts, "facts": facts(of) if not signed else []}
