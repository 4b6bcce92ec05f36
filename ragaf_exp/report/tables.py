"""metrics.json as headline cards and as a table of both stages side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragaf_exp.report.read import RunData, is_number

FIRST = "stage1/"
STANDARD = ("value", "n", "ci95", "higher_is_better", "items")


@dataclass(frozen=True)
class Metric:
    """How one figure is shown."""

    title: str
    meaning: str
    group: str
    share: bool = True  # lies in [0, 1] and gets a bar
    unit: str = ""
    digits: int = 3


COLOURS, SKETCH, ATTENTION, IMAGE = "Colours and fills", "Sketch", "Attention", "Image"
METRICS = {
    "binding_accuracy": Metric("Binding accuracy", "objects with the colour the caption gives them", COLOURS),
    "binding_accuracy_heldout": Metric(
        "Binding, held-out", "colour-shape pairs never seen in training", COLOURS
    ),
    "binding_accuracy_repeated": Metric("Binding, repeated", "objects whose shape the scene holds twice", COLOURS),
    "leak_rate": Metric("Leak rate", "objects that took another object's colour", COLOURS),
    "fill_accuracy": Metric("Fill accuracy", "plain, striped, dotted, hollow as the caption says", COLOURS),
    "sketch_f1": Metric("Sketch F1", "agreement of the image's edges with the strokes", SKETCH),
    "sketch_f1_shuffled": Metric("Sketch F1, chance", "the same against another item's sketch", SKETCH),
    "chamfer": Metric("Chamfer distance", "gap of edges and strokes, in diagonals", SKETCH, False, digits=4),
    "pointing_accuracy": Metric("Pointing accuracy", "a phrase's strongest region is its object", ATTENTION),
    "attention_iou": Metric("Attention IoU", "overlap of a phrase's map with its object", ATTENTION),
    "attention_entropy": Metric("Attention entropy", "0: all on one word, 1: even on all", ATTENTION),
    "fid": Metric("FID", "distance of Inception features", IMAGE, False, digits=2),
    "kid": Metric("KID", "kernel distance of Inception features", IMAGE, False, digits=4),
    "fd_squeezenet": Metric("FD, SqueezeNet", "distance of SqueezeNet features", IMAGE, False, digits=2),
    "fd_embedded": Metric("FD, embedded", "distance of a small network's features", IMAGE, False, digits=2),
    "clip_score": Metric("CLIP score", "agreement of image and caption", IMAGE, False),
    "clip_score_shuffled": Metric("CLIP score, chance", "the same for another item's caption", IMAGE, False),
    "lpips": Metric("LPIPS", "perceptual distance to the truth", IMAGE, False),
    "ssim": Metric("SSIM", "structural similarity to the truth", IMAGE),
    "psnr": Metric("PSNR", "signal-to-noise ratio against the truth", IMAGE, False, " dB", 2),
    "mse": Metric("MSE", "mean squared error on [0, 1]", IMAGE, False, digits=4),
    "seam_ratio": Metric("Seam ratio", "change across patch borders over change within", IMAGE, False),
}
HEADLINES = (
    "binding_accuracy", "binding_accuracy_heldout", "leak_rate", "sketch_f1", "pointing_accuracy",
    "fill_accuracy", "fid", "clip_score", "ssim", "psnr",
)  # fmt: skip
CARDS = 6


def stage_columns(run: RunData) -> list[tuple[str, str]]:
    """(title, prefix in metrics.json) of the stages with figures, in order."""
    staged = any(name.startswith(FIRST) for name in run.metrics)
    if staged:
        return [("Stage 1", FIRST), ("Stage 2", "")]
    return [("Stage 2" if run.stages[-1:] == ["refine"] else "Stage 1", "")]


def cards(run: RunData) -> list[dict[str, Any]]:
    """The headline figures of the last stage, with what they are to be held against."""
    found = []
    for name in [n for n in HEADLINES if n in run.metrics][:CARDS]:
        beside = []
        if FIRST + name in run.metrics:
            beside.append(f"stage 1: {_number(name, run.metrics[FIRST + name]['value'])}")
        if f"{name}_shuffled" in run.metrics:
            beside.append(f"chance: {_number(name, run.metrics[f'{name}_shuffled']['value'])}")
        found.append({**_head(name), **cell(name, run.metrics[name]), "beside": beside})
    return found


def table(run: RunData) -> list[dict[str, Any]]:
    """Groups of rows; a row has one cell per stage, None where the stage has no such figure."""
    prefixes = [prefix for _, prefix in stage_columns(run)]
    names = {name.removeprefix(FIRST) for name in run.metrics}
    ordered = [n for n in METRICS if n in names] + sorted(names - METRICS.keys())
    groups: dict[str, list[dict[str, Any]]] = {}
    for name in ordered:
        entries = [run.metrics.get(prefix + name) for prefix in prefixes]
        better = next(e.get("higher_is_better") for e in entries if e)
        better = None if name.endswith("_shuffled") else better
        row = {**_head(name), "better": better, "cells": [cell(name, e) if e else None for e in entries]}
        groups.setdefault(row["group"], []).append(row)
    return [{"title": title, "rows": rows} for title, rows in groups.items()]


def measured_with(run: RunData) -> list[str]:
    """What all figures were measured with, as "name value", and what only some were, with their names."""
    facts: dict[str, dict[str, list[str]]] = {}
    for name, entry in run.metrics.items():
        for key, value in entry.items():
            if key not in STANDARD:
                facts.setdefault(key, {}).setdefault(str(value), []).append(name)
    lines = []
    for key, values in facts.items():
        label = key.replace("_", " ")
        if len(values) == 1 and len(next(iter(values.values()))) == len(run.metrics):
            lines.append(f"{label} {next(iter(values))}")
        else:
            lines += [f"{label} {value} ({_titles(names)})" for value, names in values.items()]
    return lines


def _titles(names: list[str]) -> str:
    return " · ".join(dict.fromkeys(_head(name.removeprefix(FIRST))["title"] for name in names))


def cell(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A figure as text, with its place on a bar in percent where it is a share."""
    interval = entry.get("ci95")
    shown = {
        "value": _number(name, entry["value"]),
        "interval": " – ".join(_number(name, v, unit=False) for v in interval) if interval else "",
        "n": f"{entry['n']:,}" if is_number(entry.get("n")) else "",
        "bar": None,
    }
    if METRICS.get(name, _UNKNOWN).share and 0 <= entry["value"] <= 1:
        low, high = interval or (entry["value"], entry["value"])
        low, high = max(0.0, low), min(1.0, high)
        shown["bar"] = {"at": 100 * entry["value"], "low": 100 * low, "width": 100 * (high - low)}
    return shown


_UNKNOWN = Metric("", "", "Other", False)


def _head(name: str) -> dict[str, str]:
    metric = METRICS.get(name, _UNKNOWN)
    return {
        "name": name,
        "title": metric.title or name.replace("_", " "),
        "meaning": metric.meaning,
        "group": metric.group,
    }


def _number(name: str, value: float, unit: bool = True) -> str:
    metric = METRICS.get(name, _UNKNOWN)
    return f"{value:.{metric.digits}f}" + (metric.unit if unit else "")
