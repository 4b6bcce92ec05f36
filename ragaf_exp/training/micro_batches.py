"""One optimizer step's work, cut into micro-batches whose losses add up to the whole batch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.training.objective import MicroBatchWeight, StepNoise


@dataclass(frozen=True)
class Work:
    """Some items of a step, with what looks at the others already in it."""

    batch: Batch
    x0: Tensor  # (B,C,h,w)
    origin: Tensor  # (B,C,h,w): what noise is added to, see objective.start
    drawn: StepNoise
    share: MicroBatchWeight = MicroBatchWeight()  # of the step's items and regions

    def __len__(self) -> int:
        return len(self.x0)

    def pieces(self, size: int, mean: Callable[[Tensor], Tensor] = lambda value: value) -> Iterator[Work]:
        """Micro-batches of at most `size` items. mean: over the processes that share the step."""
        regions = self._regions()
        every = mean(regions.sum().float()).clamp(min=1e-6)  # none at all: all shares are 0
        for begin in range(0, len(self), size):
            rows = slice(begin, begin + size)
            share = MicroBatchWeight(len(self.x0[rows]) / len(self), regions[rows].sum() / every)
            yield replace(self, batch=self.batch.rows(rows), x0=self.x0[rows], origin=self.origin[rows],
                          drawn=self.drawn.rows(rows), share=share)  # fmt: skip

    def _regions(self) -> Tensor:
        """(B,) regions of each item; one whose sketch is dropped has none."""
        return self.batch.node_mask.sum(1) * self.drawn.keep_sketch


def parts(items: int, size: int) -> Iterator[slice]:
    """Rows of each part of at most `size` items."""
    yield from (slice(i * size, (i + 1) * size) for i in range(math.ceil(items / size)))
