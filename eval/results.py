"""Results of an evaluation: items' values, figures, and figures of groups of items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval import networks
from eval.clip.crops import PhraseRegions
from eval.difficulty import group_figures
from eval.items import ItemRow, add_values, figure_of, flat
from eval.registry import DIFFICULTY, grouped, higher_is_better, metric_of
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item

SCHEMA = 1


@dataclass
class Result:
    """The content of metrics.json and items.jsonl while an evaluation collects it."""

    rows: list[ItemRow]
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # of binding

    def add(
        self, values: dict[str, list], facts: dict[str, dict[str, Any]], measured_with: dict[str, Any], prefix: str
    ) -> None:
        """Record items' values and compute their figures.

        Args:
            values: By metric, a value for each item.
            facts: By metric, facts to record with its figure.
            measured_with: Facts to record with every figure.
            prefix: Of the metrics' names, such as "stage1/".
        """
        for name, of_items in values.items():
            add_values(self.rows, prefix + name, of_items)
            if flat(self.rows, prefix + name)[0]:
                known = {"higher_is_better": higher_is_better(name), **measured_with, **facts.get(name, {})}
                known |= _quartiles(name, flat(self.rows, prefix + name)[0])
                self.metrics[prefix + name] = figure_of(self.rows, prefix + name, **known)

    def take(self, scores: networks.NetworkScores, measured_with: dict[str, Any], prefix: str = "") -> None:
        """Record the networks' scores.

        Args:
            scores: Values, figures and reasons of unavailable metrics.
            measured_with: Facts to record with every figure.
            prefix: Of the metrics' names, such as "stage1/".
        """
        self.add(scores.values, scores.facts, measured_with, prefix)
        self.metrics |= {prefix + name: entry | measured_with for name, entry in scores.metrics.items()}
        self.unavailable |= scores.unavailable


def _quartiles(name: str, values: list[float]) -> dict[str, list[float]]:
    """The quartiles of a metric's values, where its field reports them."""
    metric = metric_of(name.rpartition("/")[2])
    if metric is None or not metric.quartiles:
        return {}
    return {"quartiles": [round(float(value), 4) for value in np.percentile(values, (25, 50, 75))]}


def phrase_regions(items: Sequence[Item]) -> Sequence[PhraseRegions] | None:
    """The objects of each item with their phrases; None if the data has no objects."""
    if not any(item.objects for item in items):
        return None
    return LazyItems(lambda i: _objects(items[i]), len(items))


def _objects(item: Item) -> PhraseRegions:
    labels = np.full(item.image.shape[:2], -1, np.int16)
    for i, thing in enumerate(item.objects):
        labels[item.object_map == thing.label] = i
    phrases = [item.caption[slice(*thing.span)] for thing in item.objects]
    return PhraseRegions(phrases, list(range(len(phrases))), labels=labels)


def groups_of(result: Result, resamples: int) -> dict[str, dict[str, Any]]:
    """Figures by difficulty, and the splits of binding."""
    better = {name: higher_is_better(name) for name in grouped(DIFFICULTY) if name in result.metrics}
    return group_figures(result.rows, better, resamples=resamples) | result.splits
