"""What an evaluation yields: metric values per item group, and how items are grouped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval import networks
from eval.clip.crops import PhraseRegions
from eval.difficulty import group_figures
from eval.items import ItemRow, add_values, figure_of, flat
from eval.registry import DIFFICULTY, grouped, higher_is_better
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item

SCHEMA = 1


@dataclass
class Result:
    """What metrics.json and items.jsonl will hold."""

    rows: list[ItemRow]
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)  # of binding

    def add(
        self, values: dict[str, list], facts: dict[str, dict[str, Any]], measured_with: dict[str, Any], prefix: str
    ) -> None:
        """Note what items scored, and make figures of it."""
        for name, of_items in values.items():
            add_values(self.rows, prefix + name, of_items)
            if flat(self.rows, prefix + name)[0]:
                known = {"higher_is_better": higher_is_better(name), **measured_with, **facts.get(name, {})}
                self.metrics[prefix + name] = figure_of(self.rows, prefix + name, **known)

    def take(self, found: networks.NetworkScores, measured_with: dict[str, Any], prefix: str = "") -> None:
        """Note what the networks found."""
        self.add(found.values, found.facts, measured_with, prefix)
        self.metrics |= {prefix + name: entry | measured_with for name, entry in found.metrics.items()}
        self.unavailable |= found.unavailable


def phrase_regions(items: Sequence[Item]) -> Sequence[PhraseRegions] | None:
    """The objects of each item and their phrases, where the data knows them."""
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
    """Figures by difficulty."""
    better = {name: higher_is_better(name) for name in grouped(DIFFICULTY) if name in result.metrics}
    return group_figures(result.rows, better, resamples=resamples) | result.splits
