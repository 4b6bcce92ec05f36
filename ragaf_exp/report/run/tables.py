"""metrics.json as headline cards, as a table of all stages, and as tables by difficulty."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from eval.registry import DIFFICULTY, HEADLINE, grouped, shown
from ragaf_exp.config.stages import IMAGES, title_of
from ragaf_exp.report.catalogue import better, head, metric, number, ordered, plain, stage_prefixes
from ragaf_exp.report.run.parse import is_number
from ragaf_exp.report.run.read import RunData

STANDARD = ("value", "n", "ci95", "higher_is_better", "items", "warning")
CARDS = 6
COLUMNS = 6
FACTS = {  # title of a difficulty group's fact, and whether it is a share of the image
    "stroke_density": ("Sketch density: pixels that are stroke", True),
    "regions": ("Regions of the sketch", False),
    "mask_area": ("Objects' masks, mean share of the image", True),
    "largest_mask": ("Largest object, share of the image", True),
    "difficulty": ("Difficulty, as the data set rates it", False),
    "object_area": ("Each object by its own share of the image", True),
    "objects": ("Objects in the scene", False),
    "shapes": ("Shapes of the scene", False),
    "pairs": ("Colour-shape pairs", False),
    "relations": ("Relation that distinguishes the object", False),
}


def stage_columns(run: RunData) -> list[tuple[str, str]]:
    """(title, prefix in metrics.json) of the stages with figures, in order, and of the rivals after them."""
    prefixes = dict.fromkeys(name.rpartition("/")[0] + "/" for name in run.metrics if "/" in name)
    earlier = stage_prefixes(run.metrics)
    rivals = [(prefix[:-1].replace("_", " ").capitalize(), prefix) for prefix in prefixes if prefix not in earlier]
    return [*((title, prefix) for prefix, title in earlier.items()), (last_stage(run), ""), *rivals]


def last_stage(run: RunData) -> str:
    """Title of the stage that figures without a prefix belong to."""
    if earlier := stage_prefixes(run.metrics):
        return title_of(IMAGES[len(earlier)])
    return run.titles.get(run.stages[-1], title_of(IMAGES[0])) if run.stages else title_of(IMAGES[0])


def cards(run: RunData) -> list[dict[str, Any]]:
    """The headline figures of the last stage, with those of earlier stages and the chance level."""
    cards_shown, earlier = [], stage_prefixes(run.metrics)
    for name in [n for n in shown(HEADLINE) if n in run.metrics][:CARDS]:
        lines = []
        for prefix, title in earlier.items():
            if prefix + name in run.metrics:
                lines.append(f"{title.lower()}: {number(name, run.metrics[prefix + name]['value'])}")
        if f"{name}_shuffled" in run.metrics:
            lines.append(f"chance: {number(name, run.metrics[f'{name}_shuffled']['value'])}")
        cards_shown.append({**head(name), **cell(name, run.metrics[name]), "context": lines})
    return cards_shown


def table(run: RunData) -> list[dict[str, Any]]:
    """Groups of rows; a row has one cell per stage, None if the stage lacks the figure."""
    prefixes = [prefix for _, prefix in stage_columns(run)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for name in ordered(map(plain, [*run.metrics, *run.unavailable])):
        entries = [run.metrics.get(prefix + name) for prefix in prefixes]
        cells = [cell(name, e) if e else None for e in entries]
        row = {
            **head(name),
            "better": next((better(name, e) for e in entries if e), None),
            "cells": cells,
            "warnings": list(dict.fromkeys(c["warning"] for c in cells if c and c["warning"])),
            "unavailable": next((run.unavailable.get(prefix + name) for prefix in reversed(prefixes)), None),
        }
        groups.setdefault(row["group"], []).append(row)
    return [{"title": title, "rows": rows} for title, rows in groups.items()]


def difficulty(run: RunData) -> dict[str, Any]:
    """The difficulty groups: columns of the main figures, and for each fact a row per group."""
    available = {name for fact in run.groups.values() for group in fact["groups"] for name in group["metrics"]}
    names = [name for name in grouped(DIFFICULTY) if name in available][:COLUMNS]
    facts = []
    for fact, content in run.groups.items():
        title, share = FACTS.get(fact, (fact.replace("_", " "), False))
        rows = [
            {
                "group": group["group"],
                "range": _range(group["from"], group["to"], share) if "from" in group else "",
                "count": f"{group['items']:,}",
                "cells": [cell(n, group["metrics"][n]) if n in group["metrics"] else None for n in names],
            }
            for group in content["groups"]
        ]
        facts.append({"title": title, "rows": rows, "without": content["without"]})
    return {"columns": [head(name)["title"] for name in names], "facts": facts if names else []}


def counted(run: RunData) -> str:
    """Numbers of used and skipped items as text; empty if metrics.json lacks them."""
    return ", ".join(f"{count:,} items {what}" for what, count in run.items.items())


def _range(low: float, high: float, share: bool) -> str:
    low, high = (f"{100 * v:.1f} %" if share else f"{v:g}" for v in (low, high))
    return low if low == high else f"{low} – {high}"


@dataclass(frozen=True)
class Conditions:
    """Facts recorded with figures: how they were measured."""

    shared: list[str]  # "name value", recorded with all figures
    own: list[tuple[str, list[str]]]  # titles of some figures, and the facts recorded with these only

    def lines(self) -> list[str]:
        """The facts as sentences."""
        sentences = [f"Measured with {'; '.join(self.shared)}."] if self.shared else []
        return sentences + [f"{titles}: {'; '.join(facts)}." for titles, facts in self.own]


def measured_with(metrics: dict[str, dict[str, Any]]) -> Conditions:
    """The facts recorded with all figures, and each distinct set of facts recorded with some only."""
    facts = {name: {k: _short(v) for k, v in e.items() if k not in STANDARD} for name, e in metrics.items()}
    every = [set(of.items()) for of in facts.values()]
    shared = set.intersection(*every) if every else set()
    own: dict[tuple[str, ...], list[str]] = {}
    for name, of in facts.items():
        own_facts = tuple(f"{k.replace('_', ' ')} {v}" for k, v in of.items() if (k, v) not in shared)
        if own_facts:
            own.setdefault(own_facts, []).append(name)
    first = next(iter(facts.values()), {})
    return Conditions(
        [f"{k.replace('_', ' ')} {v}" for k, v in first.items() if (k, v) in shared],
        [(_titles(names), list(own_facts)) for own_facts, names in own.items()],
    )


def _short(value: Any) -> str:
    """A fact as text; checksums are abbreviated."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1…", str(value))


def _titles(names: list[str]) -> str:
    return " · ".join(dict.fromkeys(head(name)["title"] for name in names))


def _quartiles(name: str, values: Any) -> str:
    """The quartiles of a figure as text; "" if it has none."""
    if not isinstance(values, list) or not all(map(is_number, values)):
        return ""
    return "quartiles " + ", ".join(number(name, value, unit=False) for value in values)


def cell(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A figure as text; a share also has its position on a bar in percent."""
    interval = entry.get("ci95")
    texts = {
        "value": number(name, entry["value"]),
        "interval": " – ".join(number(name, v, unit=False) for v in interval) if interval else "",
        "n": f"{entry['n']:,}" if is_number(entry.get("n")) else "",
        "quartiles": _quartiles(name, entry.get("quartiles")),
        "warning": str(entry.get("warning") or ""),
        "bar": None,
    }
    if metric(name).share and 0 <= entry["value"] <= 1:
        low, high = interval or (entry["value"], entry["value"])
        low, high = max(0.0, low), min(1.0, high)
        texts["bar"] = {"at": 100 * entry["value"], "low": 100 * low, "width": 100 * (high - low)}
    return texts
