"""Learning curves of a study: figures on fixed validation items over optimizer steps and over training time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from eval.registry import CURVE, shown
from ragaf_exp.core.files import write_bytes
from ragaf_exp.report.catalogue import head
from ragaf_exp.report.run.parse import is_number
from ragaf_exp.report.study.members import Group, training_seconds, training_steps
from ragaf_exp.report.svg import SERIES, WIDTH, chart
from ragaf_exp.viz.fonts import lettering

AXES = {"optimizer steps": training_steps, "training seconds": training_seconds}
COLOURS = ("#1f6fb4", "#d1662a", "#3c8c4a", "#7b5ea7", "#808080")  # of the PNG, which has no page to take colours from


def learning_charts(groups: Sequence[Group]) -> list[str]:
    """An SVG for each figure, with one chart over steps and one over seconds."""
    names = [name for name in shown(CURVE) if any(_points(g, name) for g in groups)]
    size = (2 * WIDTH, 2.75)
    return [chart(f"learning-{name}", head(name)["title"], _drawer(groups, name, SERIES), size, 2) for name in names]


def learning_picture(path: Path, groups: Sequence[Group]) -> Path | None:
    """Write the learning curves as one PNG; None if no member has a curve."""
    names = [name for name in shown(CURVE) if any(_points(g, name) for g in groups)]
    if not names:
        return None
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(10, 2.8 * len(names)), dpi=110, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        for row, name in zip(figure.subplots(len(names), 2, sharey="row", squeeze=False), names, strict=True):
            _drawer(groups, name, COLOURS)(row)
            row[0].set_ylabel(head(name)["title"])
            for label in row[0].get_legend().get_texts():  # names of runs, in any script
                font, text = lettering(label.get_text())
                label.set(text=text, font=FontProperties(fname=font, size=label.get_fontsize()))
            for axes in row:
                axes.grid(alpha=0.3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())
    return path


def _drawer(groups: Sequence[Group], name: str, colours: Sequence[str]) -> Callable[[Any], None]:
    """A function that draws a line for every seed, in a colour for every member."""

    def draw(columns: Any) -> None:
        for axes, (title, of_log) in zip(columns, AXES.items(), strict=True):
            for colour, member in zip(colours, groups, strict=False):
                for number, line in enumerate(_points(member, name, of_log)):
                    label = member.name if number == 0 else None
                    axes.plot(*zip(*line, strict=True), "o-", color=colour, label=label, markersize=3, linewidth=1.5)
            axes.set_xlabel(title)
            axes.set_xlim(left=0)
        columns[0].legend()

    return draw


def _points(member: Group, name: str, of_log: Callable[[list], list] = training_steps) -> list[list[tuple[float, float]]]:
    """The curve of each run that has one: (x, validation figure) of its last stage's images."""
    lines = []
    for run in member.runs:
        log = run.run.log
        rows = zip(of_log(log), log, strict=True)
        line = [(x, row["validation"][name]) for x, row in rows if is_number((row.get("validation") or {}).get(name))]
        lines += [line] if line else []
    return lines
