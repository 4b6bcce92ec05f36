"""Samples the latent that a stage starts from as its input during training (coarse_input)."""

from __future__ import annotations

import torch
from torch import Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.denoiser import Denoiser, prediction_of


class StartSampler:
    """Samples a trained stage in few steps for every batch.

    A degraded x_0 would not do as input: the next stage would learn to extract the information on x_0 that the degradation
    leaves, which is missing at sampling time. A sample depends on sketch, caption and noise only, as in
    sampling. It is smoother than there, since it takes fewer steps.

    Args:
        process: Process of the stage.
        model: The trained stage, which starts from noise.
        steps: Evaluations of its model; each costs about a third of a training step.
    """

    def __init__(self, process: Process, model: Denoiser, steps: int = 1):
        self.process, self.model, self.steps = process, model, steps

    @torch.no_grad()
    def __call__(self, batch: Batch, noise: Tensor) -> Tensor:
        """Sample latents (B,C,h,w) from standard normal noise (B,C,h,w), with no condition dropped."""
        conditioning = self.model.condition(batch)
        last = self.process.timesteps - 1
        latent = torch.zeros_like(noise)
        for i in range(self.steps):
            t = torch.full((len(noise),), last * (self.steps - i) // self.steps, device=noise.device)
            x_t = self.process.add_noise(latent, noise, t) if i else noise
            prediction = prediction_of(self.model.denoise(x_t, t, conditioning))
            latent = self.process.to_x0(prediction, x_t, t).to(noise.dtype)
        return latent
