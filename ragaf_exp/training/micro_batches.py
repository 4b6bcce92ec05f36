"""Splits the batch of an optimizer step into micro-batches whose losses add up to the loss of the whole batch."""

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
    """Shares of a micro-batch in its batch. They weight its losses, so that these add up to the loss of the batch."""

    items: float = 1.0
    regions: Tensor | float = 1.0  # share of the regions, for losses that are means over regions


WHOLE = MicroBatchWeight()


class MicroBatch(NamedTuple):
    """Arguments of Objective for some items of a step."""

    batch: Batch
    x_0: Tensor  # (B,C,h,w)
    noise: StepNoise
    regions_only: bool
    start: Tensor  # (B,C,h,w) latents that noise is added to, see step_noise.x_start
    share: MicroBatchWeight = WHOLE  # of the items and regions of the step
    progress: float = 0.0  # share of the stage's steps done so far


@dataclass(frozen=True)
class StepBatch:
    """The share of one process in the batch of a step.

    Args:
        batch: Conditions and images, or latents from the encoder cache.
        noise: The noise, timesteps and dropped conditions.
        encode: Maps images (B,3,H,W) to latents (B,C,h,w).
        regions_only: Whether the step trains the region path alone.
        progress: Share of the stage's steps done so far, in [0,1).
        mean: Averages a value over all processes of the step.
        previous: Passed to x_start.
    """

    batch: Batch
    noise: StepNoise
    encode: Callable[[Tensor], Tensor]
    regions_only: bool = False
    progress: float = 0.0
    mean: Callable[[Tensor], Tensor] = lambda value: value
    previous: Callable[[Tensor], Tensor] | None = None

    def micro_batches(self, size: int) -> Iterator[MicroBatch]:
        """Yield micro-batches of at most `size` items. Images are encoded in the same portions."""
        batch, noise, items = self.batch, self.noise, len(self.batch)
        x_0 = batch.latent
        if x_0 is None:
            x_0 = torch.cat([self.encode(batch.image[rows]) for rows in parts(items, size)])  # (B,C,h,w)
        start = x_0 if self.regions_only else x_start(x_0, batch, noise, self.previous)
        regions = batch.node_mask.sum(1)  # (B,)
        if (has_sketch := noise.keep.get("sketch")) is not None:
            regions = regions * has_sketch  # an item without its sketch has no regions
        total = self.mean(regions.sum().float()).clamp(min=1e-6)  # without any region, all shares are 0
        for rows in parts(items, size):
            share = MicroBatchWeight(len(x_0[rows]) / items, regions[rows].sum() / total)
            yield MicroBatch(batch.rows(rows), x_0[rows], noise.rows(rows), self.regions_only, start[rows], share,
                             self.progress)  # fmt: skip


def parts(items: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` items."""
    yield from (slice(i * size, (i + 1) * size) for i in range(math.ceil(items / size)))
