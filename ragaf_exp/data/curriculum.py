"""Curriculum learning (Bengio et al. 2009): a training order from sketches with few regions to crowded ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ragaf_exp.data.loader import Examples

OPEN = 0.25  # share of the items that the first step samples from


def easy_first(examples: Examples) -> np.ndarray:
    """Return indices sorted by the number of regions in their sketches; reads every example, needs no annotation."""
    return np.argsort([examples[i].regions.count for i in range(len(examples))], kind="stable")


def eased(order: Iterable[list[int]], steps: range, easy: np.ndarray, end: float) -> Iterator[list[int]]:
    """Map a training order onto the easiest items, whose number grows linearly to all of them.

    A step's rows are a function of the step and of the rows given, so that training resumes bit-exactly.

    Args:
        order: Item indices of each step's batch.
        steps: The steps' numbers.
        easy: (items,) item indices, the easiest first.
        end: The step from which on all items are used.

    Yields:
        Item indices of each step's batch.
    """
    for step, rows in zip(steps, order, strict=True):
        if step >= end:
            yield rows
            continue
        count = max(1, round(len(easy) * (OPEN + (1 - OPEN) * step / end)))
        yield [int(easy[row * count // len(easy)]) for row in rows]
