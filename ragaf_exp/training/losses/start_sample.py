"""What stage 2 sees of stage 1 in training, where it sees its latent (stage.refine.coarse_input)."""

from __future__ import annotations

import torch
from torch import Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.denoiser import Denoiser, prediction_of


class StartSampler:
    """A cheap sample of the trained stage 1, drawn anew for every batch.

    Not a degraded x0: whatever of x0 a degradation left, stage 2 would learn to read off it, and at sampling time it
    isn't there. A sample of stage 1 is a function of sketch, caption and noise alone, as it is then. It is made in
    fewer steps than sampling takes, and so is smoother.

    process: stage 1's. steps: evaluations of stage 1; one costs about a third of a training step.
    """

    def __init__(self, process: Process, model: Denoiser, steps: int = 1):
        self.process, self.model, self.steps = process, model, steps

    @torch.no_grad()
    def __call__(self, batch: Batch, noise: Tensor) -> Tensor:
        """noise (B,C,h,w) standard normal -> latent (B,C,h,w); with the whole caption and sketch, as in sampling."""
        conditioning = self.model.condition(batch)
        last = self.process.timesteps - 1
        latent = torch.zeros_like(noise)
        for i in range(self.steps):
            t = torch.full((len(noise),), last * (self.steps - i) // self.steps, device=noise.device)
            x_t = self.process.add_noise(latent, noise, t) if i else noise
            prediction = prediction_of(self.model.denoise(x_t, t, conditioning))
            latent = self.process.to_x0(prediction, x_t, t).to(noise.dtype)
        return latent
