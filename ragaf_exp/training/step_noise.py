"""The randomness of one training step, and the latents that its noise is added to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Generator, Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.base import Process
from ragaf_exp.models.inputs import Keep
from ragaf_exp.models.regions.pooling import pool
from ragaf_exp.regions.soft_masks import soft_masks


@dataclass(frozen=True)
class StepNoise:
    """The randomness of one step, sampled on the CPU so that it is the same on every device."""

    noise: Tensor  # (B,C,h,w) standard normal
    timesteps: Tensor  # (B,) of the diffusion process
    keep: Keep  # condition -> (B,) bool, False drops it for an item
    recolour: Tensor | None = None  # (B,) bool: start from wrongly coloured regions, as in a sample
    start: Tensor | None = None  # (B,C,h,w) standard normal: noise of the stage that it starts from, if that is an input

    def start_noise(self) -> Tensor:
        """Noise (B,C,h,w) for the latent that the stage starts from, if it takes that as input."""
        assert self.start is not None, "sampled with start=True"
        return self.start

    def to(self, device: torch.device) -> StepNoise:
        return self._each(lambda x: x.to(device, non_blocking=True))

    def rows(self, where: slice) -> StepNoise:
        return self._each(lambda x: x[where])

    def _each(self, change: Callable[[Tensor], Tensor]) -> StepNoise:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keep"}
        changed = {name: change(value) for name, value in values.items() if value is not None}
        return replace(self, keep={name: change(value) for name, value in self.keep.items()}, **changed)


def sample_step_noise(
    process: Process, shape: torch.Size, last: int, dropout: Mapping[str, float], recolour: float,
    generator: Generator, start: bool = False,
) -> StepNoise:  # fmt: skip
    """Sample everything random in a training step.

    Args:
        process: Samples the timesteps.
        shape: (B,C,h,w) of the latents.
        last: Exclusive upper end of the timesteps.
        dropout: Condition -> probability of dropping it for an item.
        recolour: Probability of a wrongly coloured start, see `x_start`.
        generator: A CPU generator.
        start: Whether to sample the noise of the latent that the stage starts from, too.

    Returns:
        The noise, on the CPU.
    """
    n = shape[0]
    return StepNoise(
        noise=torch.randn(shape, generator=generator),
        timesteps=process.at(shape[2], shape[3]).sample_timesteps(n, last, generator),
        keep={name: torch.rand(n, generator=generator) >= share for name, share in dropout.items()},
        recolour=torch.rand(n, generator=generator) < recolour if recolour else None,
        start=torch.randn(shape, generator=generator) if start else None,
    )


def x_start(
    x_0: Tensor, batch: Batch, noise: StepNoise, previous: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The latents that noise is added to: x_0, or x_0 with the mean of each region shifted to that of the previous item.

    Stage 2 starts from stage 1's output, which has the right strokes but often the wrong colours. It must learn to take
    colours from the regions, not from x_t. Stage 1 has no recoloured starts.

    Args:
        x_0: Clean latents, (B,C,h,w).
        batch: Holds the labels of the regions.
        noise: Selects the recoloured items.
        previous: Maps the means (B,N,C) of this process's items to those of the previous item in the whole batch; by
            default these are the whole batch.

    Returns:
        (B,C,h,w).
    """
    if noise.recolour is None:
        return x_0
    masks = soft_masks(batch.labels, batch.nodes.shape[1], (x_0.shape[2], x_0.shape[3]))  # (B,N,h,w)
    means = pool(x_0, masks)  # (B,N,C)
    theirs = means.roll(1, 0) if previous is None else previous(means)
    offset = (theirs - means) * batch.node_mask[..., None] * noise.recolour[:, None, None]
    return x_0 + torch.einsum("bnc,bnhw->bchw", offset, masks.to(x_0.dtype))
