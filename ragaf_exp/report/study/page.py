"""The report of a study: its members with intervals over seeds and items, differences to full and baseline, curves, and the
same items side by side.
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
from ragaf_exp.report.compare import side_by_side
from ragaf_exp.report.compare.comparable import refuse_unlike
from ragaf_exp.report.compare.runs import Member, find_folders, read_members
from ragaf_exp.report.compare.tables import ARROWS
from ragaf_exp.report.render import render
from ragaf_exp.report.study.curves import learning_charts, learning_picture
from ragaf_exp.report.study.members import BASELINE, FULL, Group, group, named, study_name


@dataclass
class Table:
    """Members as rows, figures as columns; cells are estimates, None where there is none."""

    title: str
    signed: bool  # differences
    rows: list[tuple[Group, list[SeedEstimate | None]]]


def is_study(runs: Sequence[str | Path]) -> bool:
    """Whether the first of the runs is a study's member."""
    folders = [path for path in find_folders([str(run) for run in runs]) if (path / "config.yaml").is_file()]
    return bool(folders) and bool(study_name(OmegaConf.to_container(load_config(folders[0] / "config.yaml"))))


def write_study(
    runs: Sequence[str | Path], out: Path | None = None, tables: Path | None = None, common: bool = False
) -> list[Path]:
    """Write the report of run folders, or of those in sweep folders; returns the page, its tables in Markdown, pictures.

    Arguments and errors as `ragaf_exp.report.write_comparison`.
    """
    everyone = read_members([str(run) for run in runs])
    members = [m for m in everyone if not m.missing and m.rows is not None]
    missing = [m for m in everyone if m not in members]
    groups = group(members)
    if len(groups) < 2:
        raise UserError(f"runs=[{','.join(map(str, runs))}]: {len(groups)} member with figures, a study needs two")
    refuse_unlike(members, common)
    page = out or Path(os.path.commonpath([member.path.parent for member in everyone])) / "comparison.html"
    beside = tables or page.parent
    beside.mkdir(parents=True, exist_ok=True)
    found = study_tables(groups)
    lines = notes(groups, missing)
    write_text(page, render("study.html", _content(found, groups, lines, everyone, common)))
    write_text(beside / f"{page.stem}.md", markdown(found, lines))
    pictures = [side_by_side.save_grid(beside / f"{page.stem}.png", [(g.name, g.runs[0]) for g in groups]),
                learning_picture(beside / f"{page.stem}-curves.png", _held_against(groups) or groups)]  # fmt: skip
    return [page, beside / f"{page.stem}.md", *(path for path in pictures if path is not None)]


def columns(groups: list[Group]) -> list[str]:
    """The figures that two members or more have."""
    return [name for name in shown(STUDY) if sum(g.scores(name) is not None for g in groups) > 1]


def study_tables(groups: list[Group]) -> list[Table]:
    """Figures of all members, and their differences to full and to baseline."""
    names = columns(groups)
    known = {g.name: [g.scores(name) for name in names] for g in groups}
    tables = [Table("Figures", False, [(g, [s and mean(s) for s in known[g.name]]) for g in groups])]
    for reference in _held_against(groups):
        rows = [(g, list(map(_difference, known[g.name], known[reference.name]))) for g in groups if g is not reference]
        tables.append(Table(f"Differences to {reference.name}", True, rows))
    return tables


def _difference(of: Scores | None, reference: Scores | None) -> SeedEstimate | None:
    return None if of is None or reference is None else difference(of, reference)


def _held_against(groups: list[Group]) -> list[Group]:
    return [g for g in groups if g.name in (FULL, BASELINE)] or groups[:1]


def notes(groups: list[Group], missing: list[Member]) -> list[str]:
    """What a reader must know beside the tables."""
    told = ["Intervals are 95 %, by a bootstrap over seeds and items, which draws both anew; those of members with one "
            "seed are over items alone, and say nothing of what another seed would give. Three seeds are few: an "
            "interval over them is too narrow rather than too wide.",
            "Differences are paired: on the seeds and items that both have. Bold: 0 lies outside the interval. Nothing "
            "corrects for looking at many members at once."]  # fmt: skip
    by_name = {g.name: g for g in groups}
    if FULL in by_name and BASELINE in by_name:
        full, baseline = by_name[FULL], by_name[BASELINE]
        told.append(f"Training took {full.seconds:.0f} s for full and {baseline.seconds:.0f} s for baseline, stage 1 "
                    f"included ({baseline.seconds / max(full.seconds, 1e-9):.2f} times).")  # fmt: skip
        for name in shown(RATIO):
            pair = full.scores(name), baseline.scores(name)
            found = ratio(*pair) if all(pair) else None
            if found is not None:
                told.append(f"{head(name)['title']} of full over that of baseline: {found.value:.2f} "
                            f"[{found.low:.2f}, {found.high:.2f}].")  # fmt: skip
    return told + [f"Missing: {named(m) or m.name}: {m.missing or 'items.jsonl is not there'}." for m in missing]


def text(name: str, of: SeedEstimate | None, signed: bool) -> tuple[str, str]:
    """An estimate and its interval."""
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
    """Tables of GitHub's flavour."""
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
    tables: list[Table], groups: list[Group], lines: list[str], everyone: list[Member], common: bool
) -> dict[str, Any]:  # fmt: skip
    names = columns(groups)
    blocks = [{"title": table.title, "facts": FACTS if not table.signed else (),
               "rows": [_row(of, cells, names, table.signed) for of, cells in table.rows]} for table in tables]  # fmt: skip
    first = [g.runs[0] for g in groups]
    words = ["python", "-m", "ragaf_exp.report", f"runs=[{','.join(m.place for m in everyone)}]"]
    return {
        "title": f"{len(groups)} members, {sum(len(g.runs) for g in groups)} runs",
        "columns": [{"title": head(name)["title"], "better": higher_is_better(name)} for name in names],
        "tables": blocks,
        "notes": lines,
        "charts": [Markup(svg) for svg in learning_charts(_held_against(groups))],
        "pictures": side_by_side.titles([g.name for g in groups]),
        "scenes": side_by_side.scene_grid(first),
        "command": shlex.join(words + (["items=common"] if common else [])),
    }  # fmt: skip


def _row(of: Group, cells: list[SeedEstimate | None], names: list[str], signed: bool) -> dict[str, Any]:
    texts = []
    for name, cell in zip(names, cells, strict=True):
        value, interval = text(name, cell, signed)
        known = signed and cell is not None and cell.clear
        mark = ["down", "up"][(cell.value > 0) == higher_is_better(name)] if known else ""
        texts.append({"value": value, "interval": interval, "mark": mark})
    return {"name": of.name, "cells": texts, "facts": facts(of) if not signed else []}
