"""The training objective: what one batch is asked, and the losses of the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import torch
from torch import Generator, Tensor, nn

from ragaf_exp.config.schema import Loss
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.models.conditioning import Conditioning, RegionState
from ragaf_exp.models.model import Prediction
from ragaf_exp.models.regions.pooling import pool
from ragaf_exp.models.regions.targets import asked
from ragaf_exp.regions.soft_masks import soft_masks
from ragaf_exp.training.losses.region_targets import target_losses
from ragaf_exp.training.losses.region_text import contrastive, coverage, entropy, spans
from ragaf_exp.training.losses.stage1_sample import Stage1Sampler


@dataclass(frozen=True)
class StepNoise:
    """The randomness of one step, drawn on the CPU so that it is the same on every device."""

    noise: Tensor  # (B,C,h,w) standard normal
    t: Tensor  # (B,) int64 timesteps
    keep_text: Tensor  # (B,) bool
    keep_sketch: Tensor  # (B,) bool
    recolour: Tensor | None = None  # (B,) bool: start from wrongly coloured regions, as a coarse latent has them
    coarse: Tensor | None = None  # (B,C,h,w) standard normal: what stage 1's latent is made of, where stage 2 sees it

    def to(self, device: torch.device) -> StepNoise:
        return self._each(lambda x: x.to(device, non_blocking=True))

    def rows(self, where: slice) -> StepNoise:
        return self._each(lambda x: x[where])

    def _each(self, change: Callable[[Tensor], Tensor]) -> StepNoise:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return StepNoise(**{name: None if value is None else change(value) for name, value in values.items()})


def draw(
    shape: torch.Size, last: int, dropout: tuple[float, float], recolour: float, generator: Generator,
    coarse: bool = False,
) -> StepNoise:  # fmt: skip
    """last: timesteps are uniform in [0, last). dropout: of captions, of sketches. recolour: share of starts."""
    n = shape[0]
    text, sketch = dropout
    return StepNoise(
        noise=torch.randn(shape, generator=generator),
        t=torch.randint(0, last, (n,), generator=generator),
        keep_text=torch.rand(n, generator=generator) >= text,
        keep_sketch=torch.rand(n, generator=generator) >= sketch,
        recolour=torch.rand(n, generator=generator) < recolour if recolour else None,
        coarse=torch.randn(shape, generator=generator) if coarse else None,
    )


@dataclass(frozen=True)
class MicroBatchWeight:
    """What part of a step's batch a micro-batch is: weighted by it, the micro-batches' losses add up to the batch's."""

    items: float = 1.0
    regions: Tensor | float = 1.0  # of those that losses over regions are means of


class Objective(nn.Module):
    """Weighted sum of losses, by the weights of config group `loss`; what has none is not computed.

    stage1: the trained stage 1 whose latents stage 2 is to see, in so many steps; None where it sees none.
    """

    def __init__(
        self, process: Diffusion, loss: Loss | None = None, stage1: nn.Module | None = None, coarse_steps: int = 1
    ):
        super().__init__()
        self.coarse = None if stage1 is None else Stage1Sampler(process, stage1, coarse_steps)
        self.process = process
        self.weights = asdict(loss or Loss())

    def forward(
        self, model: nn.Module, batch: Batch, x0: Tensor, drawn: StepNoise, regions_only: bool = False,
        origin: Tensor | None = None, share: MicroBatchWeight = MicroBatchWeight(), progress: float = 0.0,  # noqa: B008 - frozen
    ) -> dict[str, Tensor]:  # fmt: skip
        """x0 (B,C,h,w) -> the losses by name, and their weighted sum as `loss`.

        regions_only: ask the region path alone, without running the denoiser.
        origin (B,C,h,w): what noise is added to, where that was made of more items than these. share: see MicroBatchWeight.
        progress: share of the stage's steps that are done, in [0,1).
        """
        x_t = None
        if not regions_only:
            origin = start(x0, batch, drawn) if origin is None else origin
            x_t = self.process.add_noise(origin, drawn.noise, drawn.t)
        seen = None if self.coarse is None or regions_only else self.coarse(batch, drawn.coarse)
        prediction, conditioning = model(batch, x_t, drawn.t, drawn.keep_text, drawn.keep_sketch, seen)
        losses = {}
        if prediction.value is not None:
            target = self.process.target(x0, drawn.noise, drawn.t)
            losses["diffusion"] = self.denoising(prediction.value, target, drawn.t) * share.items
        if prediction.region_latent is not None:
            found = self._region_targets(prediction.region_latent, conditioning.regions, x0)
            losses |= {name: value * share.regions for name, value in found.items()}
        if conditioning.regions is not None:
            losses |= self._region_text(prediction, conditioning, share)
        total = sum(self.weight(name, progress) * value for name, value in losses.items())
        return {"loss": total, **losses}

    def denoising(self, value: Tensor, target: Tensor, t: Tensor) -> Tensor:
        error = (value.float() - target.float()).square().mean(dim=(1, 2, 3))  # (B,)
        return (self.process.weight(t) * error).mean()

    def weight(self, name: str, progress: float = 0.0) -> float:
        """Of a loss, where `progress` of the stage's steps are done."""
        until = self.weights["contrastive_until"]
        left = max(0.0, 1 - progress / until) if name == "contrastive" and until else 1.0
        return left * self.weights[name]

    def _region_text(self, said: Prediction, c: Conditioning, share: MicroBatchWeight) -> dict[str, Tensor]:
        """A batch without spans, as validation's are, has no loss of them. Contrast is within a micro-batch."""
        losses = {}
        if self.weights["contrastive"] > 0:  # also once its weight has fallen to 0: all steps have the same losses
            losses["contrastive"] = contrastive(said.contrastive_logits, c) * share.items
        if self.weights["coverage"] > 0:
            losses["coverage"] = coverage(c) * share.items
        if self.weights["entropy"] > 0:
            losses["entropy"] = entropy(c) * share.regions
        if self.weights["spans"] > 0 and c.phrase_tokens is not None:
            losses["spans"] = spans(c) * share.regions
        return losses

    def _region_targets(self, said: Tensor, state: RegionState, x0: Tensor) -> dict[str, Tensor]:
        """said (B,N,values of all targets)."""
        sizes = asked(self.weights, x0.shape[1])
        return target_losses(said, sizes, state.soft_masks[tuple(x0.shape[2:])], state.region_mask, x0)


def start(x0: Tensor, batch: Batch, drawn: StepNoise, before: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """What noise is added to: x0 (B,C,h,w), or x0 with each region's mean moved to that of the item before.

    Stage 2 samples from stage 1's output, which has the right strokes and often the wrong colours: it must take
    colours from the regions, not from x_t. Stage 1 draws no recoloured starts.
    before: the means (B,N,C) of each item -> of the item before it, where these are one process's share of a batch.
    """
    if drawn.recolour is None:
        return x0
    masks = soft_masks(batch.labels, batch.nodes.shape[1], tuple(x0.shape[2:]))  # (B,N,h,w)
    means = pool(x0, masks)  # (B,N,C)
    theirs = means.roll(1, 0) if before is None else before(means)
    offset = (theirs - means) * batch.node_mask[..., None] * drawn.recolour[:, None, None]
    return x0 + torch.einsum("bnc,bnhw->bchw", offset, masks.to(x0.dtype))
