"""Charts as inline SVG with the page's colours, so that they suit its light and dark themes.

Matplotlib draws in placeholder colours, which are then replaced by the page's CSS variables.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, RULE = "#010101", "#020202"  # placeholders: text, and axes with their grid
SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305")
GOOD, BAD = "#040401", "#040402"
VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)", GOOD: "var(--good)", BAD: "var(--bad)"}
VARIABLES |= {c: f"var(--c{i})" for i, c in enumerate(SERIES, 1)}
WIDTH, HEIGHT = 5.4, 2.75  # inches at 72 px: two charts fit next to each other
SETTINGS = {
    "svg.fonttype": "none", "text.parse_math": False,  # names come from other users and may contain a $
    "font.size": 9, "text.color": INK, "grid.color": RULE, "grid.linewidth": 0.5,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.edgecolor": RULE, "axes.labelcolor": INK, "axes.grid": True, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.titleweight": "bold", "legend.frameon": False, "legend.fontsize": 8,
}  # fmt: skip


def chart(
    name: str, title: str, draw: Callable[[Any], None], size: tuple[float, float] = (WIDTH, HEIGHT), columns: int = 1
) -> str:
    """Draw a chart as an <svg> element in the page's colours.

    Args:
        name: Makes the chart's ids unique on a page.
        title: Above the chart.
        draw: Called with the Axes, or with an array of them if there are several columns, which share the y axis.
        size: In inches at 72 px.
        columns: Number of Axes.
    """
    name = re.sub(r"\W", "-", name)
    with matplotlib.rc_context(SETTINGS | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has fonts for every script
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, columns, sharey=columns > 1)
        (axes if columns == 1 else axes[0]).set_title(title, parse_math=False)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{name}"', svg, count=1)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # Matplotlib's ids of single parts, which are not referenced
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
