"""Binding with region prompts: every object's regions read its own phrase alone, and no words have to be located."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval import scoring
from eval.items import ItemRow
from ragaf_exp.core.types import Example
from ragaf_exp.data.assign import with_prompts
from ragaf_exp.evaluation.samples import SampleCache
from ragaf_exp.inference.pipeline import SampledImages

MEASURED = ("binding_accuracy", "leak_rate")  # each as NAME_prompted


def prompted_values(
    examples: Sequence[Example], rows: Sequence[ItemRow], batches: Sequence[Sequence[int]], cache: SampleCache,
    sample: Callable[[Sequence[Example]], SampledImages],
) -> scoring.Values:  # fmt: skip
    """Sample some items again with region prompts, and score their binding.

    Args:
        examples: All items.
        rows: Their facts, which name them in the cache.
        batches: Indices of the items of each batch, of one size; an empty batch is skipped.
        cache: Keeps the samples.
        sample: Examples -> samples.

    Returns:
        The figures of each item's objects; None for an item that was not sampled. Empty where no item can be scored.
    """
    scenes: list = [None] * len(examples)
    for indices in batches:
        some = [examples[i] for i in indices]
        if not some or not all(scoring.can_bind(example.item) for example in some):
            continue
        prompted = [with_prompts(e, range(len(e.item.objects))) for e in some]
        names = [f"prompted {row.key} {row.image} {row.sketch}" for row in (rows[i] for i in indices)]
        images = _sampled(cache, names, prompted, sample).final
        for i, image, example in zip(indices, images, some, strict=True):
            scenes[i] = scoring.bindings(image, example.item)
    values = scoring.binding_values(scenes)
    return {f"{name}_prompted": values[name] for name in MEASURED if name in values}


def _sampled(
    cache: SampleCache, names: list[str], examples: list[Example], sample: Callable[[Sequence[Example]], SampledImages]
) -> SampledImages:
    return cache.batch(names, lambda: sample(examples))
