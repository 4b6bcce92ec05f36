"""Sampling of examples whose images differ in size, one batch per size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragaf_exp.core.types import Example
from ragaf_exp.data.buckets import same_size
from ragaf_exp.data.loader import collate
from ragaf_exp.inference.pipeline import Pipeline, SampledImages


def sample_images(pipeline: Pipeline, examples: Sequence[Example]) -> SampledImages:
    """Sample examples of any sizes.

    Args:
        pipeline: Samples a batch of one size.
        examples: The examples.

    Returns:
        The samples in the order of the examples. Each field is an array where all sizes are equal, else a list of the
        items' arrays.
    """
    batches = same_size(examples, len(examples))
    sampled = [pipeline(collate([examples[i] for i in rows], pipeline.last.needs_spans)).to_images() for rows in batches]
    return sampled[0] if len(sampled) == 1 else in_order(sampled, batches)


def in_order(sampled: Sequence[SampledImages], batches: Sequence[Sequence[int]]) -> SampledImages:
    """Join the samples of batches to lists in the order of the items.

    Args:
        sampled: The samples of each batch.
        batches: The indices of its items.
    """
    fields: dict[str, Any] = {}
    for name in dict.fromkeys(name for images in sampled for name in images.arrays):
        there = [
            (rows, images.arrays[name]) for rows, images in zip(batches, sampled, strict=True) if name in images.arrays
        ]
        by_item = dict(pair for rows, values in there for pair in zip(rows, values, strict=True))
        fields[name] = [by_item[i] for i in sorted(by_item)]
    return SampledImages.of_arrays(fields)
