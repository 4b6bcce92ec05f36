"""The training objective: what one batch is asked, and the losses of the answer."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor, nn

from ragaf_exp.diffusion import Diffusion
from ragaf_exp.models.conditioning import Conditioning
from ragaf_exp.models.model import Prediction
from ragaf_exp.models.ragaf import pool
from ragaf_exp.regions.soft_masks import soft_masks
from ragaf_exp.types import Batch


@dataclass(frozen=True)
class Draw:
    """The randomness of one step, drawn on the CPU so that it is the same on every device."""

    noise: Tensor  # (B,C,h,w) standard normal
    t: Tensor  # (B,) int64 timesteps
    keep_text: Tensor  # (B,) bool
    keep_sketch: Tensor  # (B,) bool
    recolour: Tensor  # (B,) bool: start from wrongly coloured regions, as a coarse latent has them

    def to(self, device: torch.device) -> Draw:
        return Draw(*(getattr(self, f.name).to(device) for f in fields(self)))

    def rows(self, where: slice) -> Draw:
        return Draw(*(getattr(self, f.name)[where] for f in fields(self)))


def draw(shape: torch.Size, last: int, dropout: tuple[float, float], recolour: float, generator: Generator) -> Draw:
    """last: timesteps are uniform in [0, last). dropout: of captions, of sketches. recolour: share of starts."""
    n = shape[0]
    text, sketch = dropout
    return Draw(
        noise=torch.randn(shape, generator=generator),
        t=torch.randint(0, last, (n,), generator=generator),
        keep_text=torch.rand(n, generator=generator) >= text,
        keep_sketch=torch.rand(n, generator=generator) >= sketch,
        recolour=torch.rand(n, generator=generator) < recolour,
    )


class Objective(nn.Module):
    """Weighted sum of losses; weights are plain values, zero allowed.

    diffusion: weight of the denoising loss. region_latent: weight of the squared error of each region token's guess
    of the mean of x0 over its soft mask; it needs no annotation.
    """

    def __init__(self, process: Diffusion, diffusion: float = 1.0, region_latent: float = 1.0):
        super().__init__()
        self.process = process
        self.weights = {"diffusion": diffusion, "region_latent": region_latent}

    def forward(
        self, model: nn.Module, batch: Batch, x0: Tensor, drawn: Draw, regions_only: bool = False
    ) -> dict[str, Tensor]:
        """x0 (B,C,h,w) -> the losses by name, and their weighted sum as `loss`.

        regions_only: ask the region path alone, without running the denoiser.
        """
        x_t = None if regions_only else self.process.add_noise(start(x0, batch, drawn), drawn.noise, drawn.t)
        prediction, conditioning = model(batch, x_t, drawn.t, drawn.keep_text, drawn.keep_sketch)
        losses = {}
        if prediction.value is not None:
            target = self.process.target(x0, drawn.noise, drawn.t)
            losses["diffusion"] = self.denoising(prediction.value, target, drawn.t)
        if prediction.region_latent is not None:
            losses["region_latent"] = region_latent_loss(prediction, conditioning, x0)
        total = sum(self.weights[name] * value for name, value in losses.items())
        return {"loss": total, **losses}

    def denoising(self, value: Tensor, target: Tensor, t: Tensor) -> Tensor:
        error = (value.float() - target.float()).square().mean(dim=(1, 2, 3))  # (B,)
        return (self.process.weight(t) * error).mean()


def start(x0: Tensor, batch: Batch, drawn: Draw) -> Tensor:
    """What noise is added to: x0 (B,C,h,w), or x0 with each region's mean moved to that of the item before.

    Stage 2 samples from stage 1's output, which has the right strokes and often the wrong colours: it must take
    colours from the regions, not from x_t. Stage 1 draws no recoloured starts.
    """
    if not drawn.recolour.any():
        return x0
    masks = soft_masks(batch.labels, batch.nodes.shape[1], tuple(x0.shape[2:]))  # (B,N,h,w)
    means = pool(x0, masks)  # (B,N,C)
    offset = (means.roll(1, 0) - means) * batch.node_mask[..., None] * drawn.recolour[:, None, None]
    return x0 + torch.einsum("bnc,bnhw->bchw", offset, masks.to(x0.dtype))


def region_latent_loss(prediction: Prediction, conditioning: Conditioning, x0: Tensor) -> Tensor:
    """Mean squared error over regions of prediction.region_latent (B,N,C) against the mean of x0 in their masks."""
    state = conditioning.regions
    target = pool(x0, state.soft_masks[tuple(x0.shape[2:])])  # (B,N,C)
    error = (prediction.region_latent.float() - target).square().mean(-1)  # (B,N)
    return (error * state.region_mask).sum() / state.region_mask.sum().clamp(min=1)
