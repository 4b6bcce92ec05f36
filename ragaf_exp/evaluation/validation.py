"""The small, fast part of the evaluation that training's validation calls on its grid of samples."""

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
    examples: list[Example], drawn: SampledImages, extractor: Any, metrics: Sequence[Reference]
) -> dict[str, float]:
    """Means over a few items of the last stage's images.

    Args:
        examples: The items.
        drawn: Their samples.
        extractor: The extractor that made the sketches.
        metrics: The task's functions, Scoring -> values.
    """
    images = list(drawn.final)
    scoring, values = Scoring(images, examples, reader_of(extractor), seed=0), {}
    for metric in metrics:
        values |= resolved(metric)(scoring)
    values |= pixel_values(images, [e.item.image for e in examples])
    found = {name: [v for value in values[name] for v in numbers(value)] for name in shown(VALIDATION) if name in values}
    return {name: float(np.mean(of_items)) for name, of_items in found.items() if of_items}
