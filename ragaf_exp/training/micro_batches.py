"""One optimizer step's batch, cut into micro-batches whose losses add up to the whole batch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.training.step_noise import StepNoise, x_start


@dataclass(frozen=True)
class MicroBatchWeight:
    """What part of a step's batch a micro-batch is: weighted by it, the micro-batches' losses add up to the batch's."""

    items: float = 1.0
    regions: Tensor | float = 1.0  # of those that losses over regions are means of


WHOLE = MicroBatchWeight()


class MicroBatch(NamedTuple):
    """Some items of a step, in the order of the arguments that Objective takes."""

    batch: Batch
    x_0: Tensor  # (B,C,h,w)
    noise: StepNoise
    regions_only: bool
    start: Tensor  # (B,C,h,w): latents that noise is added to, see step_noise.x_start
    share: MicroBatchWeight = WHOLE  # of the step's items and regions
    progress: float = 0.0  # share of the stage's steps that are done


@dataclass(frozen=True)
class StepBatch:
    """A process's share of a step's batch.

    encode: images (B,3,H,W) -> latents. mean: over the processes that share the step. previous: as x_start takes it.
    """

    batch: Batch
    noise: StepNoise
    encode: Callable[[Tensor], Tensor]
    regions_only: bool = False
    progress: float = 0.0
    mean: Callable[[Tensor], Tensor] = lambda value: value
    previous: Callable[[Tensor], Tensor] | None = None

    def micro_batches(self, size: int) -> Iterator[MicroBatch]:
        """Micro-batches of at most `size` items; images are encoded by as many."""
        batch, noise, items = self.batch, self.noise, len(self.batch)
        x_0 = batch.latent
        if x_0 is None:
            x_0 = torch.cat([self.encode(batch.image[rows]) for rows in parts(items, size)])  # (B,C,h,w)
        start = x_0 if self.regions_only else x_start(x_0, batch, noise, self.previous)
        regions = batch.node_mask.sum(1)  # (B,)
        if (has_sketch := noise.keep.get("sketch")) is not None:
            regions = regions * has_sketch  # an item whose sketch is dropped has none
        every = self.mean(regions.sum().float()).clamp(min=1e-6)  # none at all: all shares are 0
        for rows in parts(items, size):
            share = MicroBatchWeight(len(x_0[rows]) / items, regions[rows].sum() / every)
            yield MicroBatch(batch.rows(rows), x_0[rows], noise.rows(rows), self.regions_only, start[rows], share,
                             self.progress)  # fmt: skip


def parts(items: int, size: int) -> Iterator[slice]:
    """Rows of each part of at most `size` items."""
    yield from (slice(i * size, (i + 1) * size) for i in range(math.ceil(items / size)))
