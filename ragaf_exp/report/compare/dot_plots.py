"""Charts of a comparison: each run's figure with its interval, and its difference to the first run."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from eval.registry import HEADLINE, shown
from ragaf_exp.report.catalogue import head
from ragaf_exp.report.compare.compare import Comparison, Row
from ragaf_exp.report.svg import BAD, GOOD, INK, RULE, SERIES, WIDTH, chart

CHARTS = 8
PLAIN = SERIES[4]  # a difference that is not clear, or of a figure without a direction


def dot_charts(comparison: Comparison) -> list[str]:
    """One chart for each headline figure that at least two runs have."""
    rows = {row.name: row for row in comparison.rows if sum(cell is not None for cell in row.cells) > 1}
    letters = [member.letter for member in comparison.members]
    return [_dots(rows[name], letters) for name in shown(HEADLINE) if name in rows][:CHARTS]


def _dots(row: Row, letters: list[str]) -> str:
    differs = any(cell and cell.difference for cell in row.cells)

    def draw(axes: Any) -> None:
        left, right = axes if differs else (axes, None)
        _values(left, row, letters)
        if right is not None:
            _differences(right, row, letters)

    size = (WIDTH, 0.95 + 0.26 * len(letters))
    return chart(f"dots-{row.name}", head(row.name)["title"], draw, size, 2 if differs else 1)


def _values(axes: Axes, row: Row, letters: list[str]) -> None:
    for index, cell in enumerate(row.cells):
        if cell is not None:
            value = cell.entry["value"]
            low, high = cell.entry.get("ci95") or (value, value)
            _point(axes, index, value, low, high, SERIES[0])
    axes.set_yticks(range(len(letters)), letters)
    axes.set_ylim(len(letters) - 0.5, -0.5)
    axes.set_xlabel("value" + {True: ", higher is better", False: ", lower is better", None: ""}[row.better])
    axes.locator_params(axis="x", nbins=5)


def _differences(axes: Axes, row: Row, letters: list[str]) -> None:
    axes.axvline(0, color=INK, linewidth=0.8)
    for index, cell in enumerate(row.cells):
        if cell is not None and cell.difference is not None:
            d = cell.difference
            known = d.clear and row.better is not None
            colour = (GOOD if (d.value > 0) == row.better else BAD) if known else PLAIN
            _point(axes, index, d.value, d.low, d.high, colour)
    axes.set_xlabel(f"difference to {letters[0]}")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)


def _point(axes: Axes, index: int, value: float, low: float, high: float, colour: str) -> None:
    axes.plot([low, high], [index, index], color=colour, linewidth=2, alpha=0.6, solid_capstyle="butt")
    axes.plot([value], [index], "o", color=colour, markersize=5)
    axes.yaxis.grid(True, color=RULE)
