"""Items per optimizer step: a number of items, or as many as a number of image tokens allows for the size of the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragaf_exp.config.schema import Stage
from ragaf_exp.data.buckets import Size, items_of
from ragaf_exp.data.loader import Examples
from ragaf_exp.distributed import collectives


def batch_sizes(examples: Examples, groups: Sequence[np.ndarray], stage: Stage, token_side: int) -> list[int]:
    """Items per optimizer step of each group of items, over all processes.

    Args:
        examples: The training split.
        groups: Item indices by group. All images of a group have one size.
        stage: Group `stage`: `tokens`, or `batch` where that is 0.
        token_side: Side of an image token in pixels.

    Raises:
        UserError: An image has more than stage.tokens tokens.
    """
    if not stage.tokens:
        return [stage.batch] * len(groups)
    ranks = collectives.count()
    return [items_of(stage.tokens, _size(examples, int(group[0])), token_side, ranks) for group in groups]


def _size(examples: Examples, index: int) -> Size:
    """Height and width of an item in pixels, which a split with images of several sizes knows."""
    sizes = getattr(examples.items, "sizes", None)
    height, width = examples[index].sketch.shape[-2:] if sizes is None else sizes[index]
    return height, width
