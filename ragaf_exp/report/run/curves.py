"""A run's charts: losses and condition usage over the steps, fusion over the timesteps."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ragaf_exp.report.run.parse import is_number
from ragaf_exp.report.run.read import RunData
from ragaf_exp.report.svg import SERIES, chart

POINTS = 300  # a curve is subsampled to at most this many: more would only make the file larger
USAGE = {  # key in metrics.jsonl -> its line in the chart
    "right": "right conditions",
    "text_shuffled": "another item's text",
    "sketch_shuffled": "another item's sketch",
    "regions_shuffled": "another item's regions",
}


def loss_charts(run: RunData) -> list[str]:
    """A chart for each stage with its losses over steps, as logged (faint) and smoothed."""
    return [chart(f"loss-{stage}", title_of(run, stage), _draw_losses(run, stage)) for stage in run.stages]


def usage_charts(run: RunData) -> list[str]:
    """A chart for each stage with the validation loss for the right conditions and for each one shuffled."""
    charts = []
    for stage in run.stages:
        rows = _validations(run, stage)
        if rows:
            charts.append(chart(f"usage-{stage}", title_of(run, stage), _draw_usage(rows)))
    return charts


def usage_ratios(run: RunData) -> dict[str, dict[str, float]]:
    """Stage -> condition -> ratio of the last validation's loss with another item's condition to that with its own."""
    ratios = {}
    for stage in run.stages:
        rows = _validations(run, stage)
        last = rows[-1]["validation"] if rows else {}
        if is_number(last.get("right")) and last["right"] > 0:
            conditions = {k.removesuffix("_shuffled"): last[k] / last["right"] for k in USAGE if is_number(last.get(k))}
            conditions.pop("right")
            ratios[stage] = conditions
    return ratios


def fusion_chart(run: RunData) -> str:
    """The fusion weights of sketch and text over the timesteps, from noise to image."""
    fusion = run.fusion or {}

    def draw(axes: Axes) -> None:
        order = np.argsort(fusion["timesteps"])
        t = np.array(fusion["timesteps"])[order]
        for name, colour in (("sketch", SERIES[0]), ("text", SERIES[1])):
            mean = np.array(fusion[name])[order]
            axes.plot(t, mean, color=colour, label=f"weight of the {name}", linewidth=2)
            if f"{name}_std" in fusion:
                std = np.array(fusion[f"{name}_std"])[order]
                axes.fill_between(t, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
        axes.invert_xaxis()
        axes.set_xlabel("timestep   (noise → image)")
        axes.legend()

    return chart("fusion", "", draw)


def title_of(run: RunData, stage: str) -> str:
    """The title of a stage's charts."""
    return ", ".join(filter(None, (run.titles.get(stage), stage)))


def _validations(run: RunData, stage: str) -> list[dict[str, Any]]:
    return [row for row in run.log if row["stage"] == stage and isinstance(row.get("validation"), dict)]


def _draw_losses(run: RunData, stage: str) -> Callable[[Axes], None]:
    rows = [row for row in run.log if row["stage"] == stage and "validation" not in row]
    names = list(dict.fromkeys(k for row in rows for k in row if k.startswith("loss")))[: len(SERIES)]

    def draw(axes: Axes) -> None:
        for name, colour in zip(names, SERIES, strict=False):
            points = [(row["step"], row[name]) for row in rows if is_number(row.get(name))]
            _curve(axes, np.array(points, float).reshape(-1, 2), colour, _plain(name))
        _finish(axes)

    return draw


def _draw_usage(rows: Sequence[dict[str, Any]]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for (name, label), colour in zip(USAGE.items(), SERIES, strict=False):
            points = [(r["step"], r["validation"][name]) for r in rows if is_number(r["validation"].get(name))]
            if points:
                style = "-" if name == "right" else "--"
                marker = "o" if len(points) < 20 else ""
                axes.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=marker, markersize=3)
        _finish(axes)

    return draw


def _curve(axes: Axes, points: np.ndarray, colour: str, label: str) -> None:
    """Draw points (n,2) of step and value, subsampled and faint, and their running mean over a twentieth of the run."""
    if not len(points):
        return
    every, span = -(-len(points) // POINTS), max(1, len(points) // 20)
    window = np.ones(2 * (span // 2) + 1)
    smooth = np.convolve(points[:, 1], window, "same") / np.convolve(np.ones(len(points)), window, "same")
    thin, smooth = points[::every], smooth[::every]
    axes.plot(thin[:, 0], thin[:, 1], color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(thin[:, 0], smooth, color=colour, label=label, linewidth=1.6)


def _plain(name: str) -> str:
    """A loss's name for the legend, without characters that are special in Matplotlib or HTML."""
    return re.sub(r"[^\w ]", "", name.removeprefix("loss_").replace("_", " "))


def _finish(axes: Axes) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    values = np.concatenate([line.get_ydata() for line in axes.lines]) if axes.lines else np.empty(0)
    if len(values) and (values > 0).all():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if axes.lines:
        axes.legend()
