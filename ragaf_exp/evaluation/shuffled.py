"""Samples of items that get one condition of another item: a model that uses it then scores no better than chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from eval.items import ItemRow
from ragaf_exp.core.types import Example
from ragaf_exp.evaluation.samples import SampleCache
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.tasks.base import Condition


def shuffled_images(
    examples: Sequence[Example], rows: Sequence[ItemRow], batches: Sequence[Sequence[int]], condition: Condition,
    cache: SampleCache, sample: Callable[[Sequence[Example]], SampledImages],
) -> list[np.ndarray]:  # fmt: skip
    """Sample all items with the condition's arrays of the item before, the first with those of the last.

    Args:
        examples: All items.
        rows: Their facts, which name them in the cache.
        batches: Indices of the items of each batch, of one size.
        condition: The condition that is exchanged, within images of one size.
        cache: Stores the samples.
        sample: Examples -> samples.

    Returns:
        (H,W,3) uint8 of each item.
    """
    order = [index for indices in batches for index in indices]
    donor = dict(zip(order, [order[-1], *order[:-1]], strict=True))
    images: dict[int, np.ndarray] = {}
    for indices in batches:
        names = [f"{condition.name} shuffled {rows[i].key} {rows[i].image} {rows[i].sketch}" for i in indices]
        some = [_with(examples[i], examples[donor[i]], condition) for i in indices]
        sampled = cache.batch(names, lambda some=some: sample(some))
        images |= zip(indices, sampled.final, strict=True)
    return [images[i] for i in range(len(examples))]


def _with(example: Example, donor: Example, condition: Condition) -> Example:
    """An example with another's arrays of a condition."""
    exchanged = {name: donor.conditions[name] for name in condition.maps}
    return replace(example, conditions={**example.conditions, **exchanged})
