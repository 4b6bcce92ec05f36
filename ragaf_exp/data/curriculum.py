"""Few regions first (Bengio et al. 2009): a training order that opens the data from simple sketches to crowded ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ragaf_exp.data.loader import Examples

OPEN = 0.25  # share of the items that the first step draws from


def easy_first(examples: Examples) -> np.ndarray:
    """Indices in order of how many regions their sketches have, which needs no annotation; reads every example."""
    return np.argsort([examples[i].regions.count for i in range(len(examples))], kind="stable")


def eased(order: Iterable[list[int]], steps: range, easy: np.ndarray, end: float) -> Iterator[list[int]]:
    """`order`, the rows of each of `steps`, squeezed into the items that are open: all of them from step `end` on.

    What is open grows linearly; a step's rows are a function of the step and of the rows given, so that training
    resumes to the bit.
    """
    for step, rows in zip(steps, order, strict=True):
        if step >= end:
            yield rows
            continue
        count = max(1, round(len(easy) * (OPEN + (1 - OPEN) * step / end)))
        yield [int(easy[row * count // len(easy)]) for row in rows]
