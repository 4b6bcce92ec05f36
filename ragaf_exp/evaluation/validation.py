"""The fast part of the evaluation, which training's validation computes on its grid of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eval.edges import reader_of
from eval.items import numbers
from eval.registry import VALIDATION, shown
from eval.scoring import Scoring, pixel_values
from ragaf_exp.core.types import Example
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.tasks.base import Reference, resolved


def validation_scores(
    examples: list[Example], sampled: SampledImages, extractor: Any, metrics: Sequence[Reference]
) -> dict[str, float]:
    """Means of the validation metrics over a few items, for the last stage's images.

    Args:
        examples: The items.
        sampled: Their samples.
        extractor: The extractor that made the sketches.
        metrics: The task's functions, Scoring -> values.
    """
    images = list(sampled.final)
    scoring, by_item = Scoring(images, examples, reader_of(extractor), seed=0), {}
    for metric in metrics:
        by_item |= resolved(metric)(scoring)
    by_item |= pixel_values(images, [e.item.image for e in examples])
    names = [name for name in shown(VALIDATION) if name in by_item]
    by_metric = {name: [v for value in by_item[name] for v in numbers(value)] for name in names}
    return {name: float(np.mean(values)) for name, values in by_metric.items() if values}
