"""The figures of a run's region edits, and the samples that they are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.edges import EdgeReader
from eval.statistics.bootstrap import figure
from eval.statistics.paired import paired_differences
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.markdown import table
from ragaf_exp.core.types import Example
from ragaf_exp.data.buckets import batches_of
from ragaf_exp.data.loader import collate
from ragaf_exp.inference.pipeline import Pipeline

Images = list[np.ndarray]  # (H,W,3) uint8, of each example
Values = list[list[float]]  # of each item, one value or one per object


@dataclass
class Study:
    """The figures of one run, as they are measured."""

    parts: Parts
    pipeline: Pipeline
    examples: list[Example]
    reader: EdgeReader
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampled: dict[str, Images] = field(default_factory=dict)  # by what they show, as measures share some

    def sample(self, examples: Sequence[Example], what: str) -> Images:
        """Sample examples batch by batch, once per `what`; the noise depends on the item alone."""
        if what not in self.sampled:
            self.sampled[what] = self._sample(examples, what)
        return self.sampled[what]

    def _sample(self, examples: Sequence[Example], what: str) -> Images:
        images: dict[int, np.ndarray] = {}
        batches = batches_of([example.item.image.shape for example in examples], self.parts.cfg.eval.batch)
        for indices in tqdm(batches, desc=f"sampling {what}", unit="batch"):
            sampled = self.pipeline(collate([examples[i] for i in indices], self.pipeline.last.needs_spans)).to_images()
            images |= zip(indices, sampled.final, strict=True)
        return [images[i] for i in range(len(examples))]

    def add(self, name: str, meaning: str, values: Values, higher_is_better: bool = True) -> None:
        """Note a figure with its 95 % interval, clustered by item.

        Args:
            name: Of the figure.
            meaning: In a few words.
            values: Of each item.
            higher_is_better: The direction.
        """
        pairs = [(value, i) for i, of_item in enumerate(values) for value in of_item]
        if pairs:
            numbers, items = zip(*pairs, strict=True)
            resamples = self.parts.cfg.eval.bootstrap
            entry = figure(numbers, clusters=items, higher_is_better=higher_is_better, resamples=resamples)
            self.figures[name] = {"meaning": meaning, **entry}

    def add_difference(self, name: str, meaning: str, before: Values, after: Values) -> None:
        """Note a paired difference with its 95 % interval.

        Args:
            name: Of the figure.
            meaning: In a few words.
            before: Values of each item.
            after: Values of the same items; the figure is these minus `before`.
        """
        estimate = paired_differences([before, after], resamples=self.parts.cfg.eval.bootstrap)[0]
        gap = asdict(estimate)
        self.figures[name] = {"meaning": meaning, "value": gap["value"], "ci95": [gap["low"], gap["high"]],
                              "n": sum(map(len, before)), "items": len(before)}  # fmt: skip


def markdown(figures: dict[str, dict[str, Any]]) -> str:
    """The figures as a table."""
    rows = [[name, entry["meaning"], f"{entry['value']:.4f} [{entry['ci95'][0]:.4f}, {entry['ci95'][1]:.4f}]",
             str(entry["n"])] for name, entry in figures.items()]  # fmt: skip
    return table(["figure", "meaning", "value [95 %]", "n"], rows, text=2)
