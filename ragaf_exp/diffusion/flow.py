"""Rectified flow (config group `diffusion`): a straight path from data to noise.

x_t = (1 - s) x_0 + s noise with s = t / T, and the network predicts the velocity noise - x_0 (Liu et al. 2023, arXiv
2209.03003; Lipman et al. 2023, arXiv 2210.02747). Densities, shifts and weights: Esser et al. 2024, arXiv 2403.03206.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import torch
from torch import Generator, Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.diffusion.base import FLOW, Process
from ragaf_exp.diffusion.densities import DENSITIES, SHIFTS, make_density, shifted
from ragaf_exp.diffusion.flow_schedulers import make_scheduler

WEIGHTINGS = {
    "none": lambda flow, s: torch.ones_like(s),
    "sigma_sqrt": lambda flow, s: s**-2,  # equal weight for errors of the estimate of x_0
    "cosmap": lambda flow, s: 2 / (math.pi * (1 - 2 * s + 2 * s**2)),
    "min_snr": lambda flow, s: flow.min_snr_weight(s),
}


class Flow(Process):
    """Rectified flow with a velocity target.

    Args:
        timesteps: T; timesteps are real numbers from 0 (data) to T (noise).
        density: Density of the trained timesteps: uniform, logit_normal or cosmap.
        mean: Mean of the time's logit, for logit_normal.
        deviation: Standard deviation of the time's logit, for logit_normal.
        shift: Shift of training and sampling towards the noise, 1 = none.
        shift_by: How the shift depends on the number of tokens: constant (not at all), sd3 or flux.
        patch_size: Side of a token in latent cells, for that factor.
        weighting: Weight of the velocity's squared error: none, sigma_sqrt, cosmap or min_snr.
        min_snr: gamma of min_snr, 0 = no limit.
        snr_offset: Added to the SNR in min_snr.

    Raises:
        UserError: A name is unknown, or a value lies outside its range.
    """

    schedulers = ("euler", "heun", "dpm")

    def __init__(
        self, timesteps: limits.Timesteps = 1000, density: str = "logit_normal", mean: limits.LogitMean = 0.0,
        deviation: limits.LogitDeviation = 1.0, shift: limits.TimeShift = 1.0, shift_by: str = "constant",
        patch_size: limits.Patch = 1, weighting: str = "none", min_snr: limits.MinSnr = 5.0,
        snr_offset: limits.SnrOffset = 1.0,
    ):  # fmt: skip
        super().__init__()
        at_least("diffusion", 2, timesteps=timesteps)
        at_least("diffusion", 1e-2, deviation=deviation, shift=shift)
        at_least("diffusion", 0, min_snr=min_snr, snr_offset=snr_offset)
        for key, value, known in (("density", density, DENSITIES), ("shift_by", shift_by, SHIFTS),
                                  ("weighting", weighting, WEIGHTINGS)):  # fmt: skip
            if value not in known:
                raise UserError(f"diffusion.{key}={value}: must be one of {sorted(known)}")
        self.timesteps, self.shift, self.shift_by, self.patch_size = timesteps, shift, shift_by, patch_size
        self.density = make_density(density, mean, deviation)
        self.weighting, self.min_snr, self.snr_offset = weighting, min_snr, snr_offset

    def at(self, height: int, width: int) -> Flow:
        """This flow with its shift for latents of height x width."""
        flow = copy(self)
        flow.shift, flow.shift_by = self.shift * SHIFTS[self.shift_by](height * width / self.patch_size**2), "constant"
        return flow

    def sample_timesteps(self, count: int, last: int, generator: Generator) -> Tensor:
        """Sample from the density, truncated at `last`.

        Args:
            count: Number of timesteps.
            last: Upper end in [1, T] before the shift, as in sampling, so that training and sampling agree.
            generator: A CPU generator.

        Returns:
            (count,) float32 on the CPU.
        """
        end = last / self.timesteps
        share = torch.rand(count, generator=generator, dtype=torch.float64) * self.density.cdf(end)
        return (shifted(self.density.quantile(share).clamp(max=end), self.shift) * self.timesteps).float()

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = (1 - s) x_0 + s noise.

        Args:
            x_0: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            (B,C,h,w).
        """
        s = self._time(t, x_0)
        return (1 - s) * x_0 + s * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The velocity.

        Args:
            x_0: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            t: Not used, since the path is straight.

        Returns:
            noise - x_0, (B,C,h,w).
        """
        return noise - x_0

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The end of the straight line from x_t.

        Args:
            prediction: Velocity, (B,C,h,w).
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            x_0, (B,C,h,w).
        """
        return x_t - self._time(t, x_t) * prediction

    def weight(self, t: Tensor) -> Tensor:
        """Weight (B,) of the squared error of the velocity at timesteps t (B,)."""
        s = (t.double() / self.timesteps).clamp(1 / self.timesteps, 1 - 1 / self.timesteps)
        return WEIGHTINGS[self.weighting](self, s).float()

    def min_snr_weight(self, s: Tensor) -> Tensor:
        """min(SNR + offset, gamma) of x_0's squared error, which is s^2 times the velocity's (Hang et al. 2023)."""
        weight = ((1 - s) / s) ** 2 + self.snr_offset
        return (weight if self.min_snr <= 0 else weight.clamp(max=self.min_snr)) * s**2

    def scheduler(self, name: str) -> Any:
        """Create a scheduler of diffusers. name: euler, heun or dpm."""
        return make_scheduler(name, self.timesteps, self.shift)

    def check_pretrained(self, wanted: dict[str, Any]) -> None:
        """Raise UserError if a backbone was not trained as a flow. wanted: settings of its scheduler."""
        if wanted["prediction_type"] == FLOW:
            return
        raise UserError(f"diffusion: the backbone was trained with {wanted.get('prediction_type')} on a noise schedule "
                        "(its scheduler/scheduler_config.json), which is not a flow; take diffusion=folder")  # fmt: skip

    def _time(self, t: Tensor, like: Tensor) -> Tensor:
        return (t.double() / self.timesteps)[:, None, None, None].to(like.dtype)
