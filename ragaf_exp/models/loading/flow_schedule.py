"""The rectified flow that a transformer's folder was trained with (config group `diffusion`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.diffusion.flow import Flow
from ragaf_exp.diffusion.flow_schedulers import FlowScheduler
from ragaf_exp.models.loading.hub import Origin, read_config
from ragaf_exp.models.loading.schedule import FILE, FOLDER

STEPS = 50  # of Flux.2's pipeline


class FolderFlow(Flow):
    """The flow given by scheduler/scheduler_config.json: shift, its dependence on the resolution, and end of the schedule.

    `sampler.scheduler=euler` is the scheduler of the folder, with the times of the family's pipeline; the others share its
    shift.

    Args:
        source: A folder or hub id in diffusers' layout; "" = no shift.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        spacing: Times of the sampler's steps before the shift: even (1, ..., 1/steps, as in Flux's pipeline) or scheduler
            (diffusers' default, as in Stable Diffusion 3's).
        density: Density of the trained timesteps: uniform, logit_normal or cosmap.
        mean: Mean of the time's logit, for logit_normal.
        deviation: Standard deviation of the time's logit, for logit_normal.
        patch_size: Side of a token in latent cells.
        weighting: Weight of the velocity's squared error: none, sigma_sqrt, cosmap or min_snr.
        min_snr: gamma of min_snr, 0 = no limit.
        snr_offset: Added to the SNR in min_snr.

    Raises:
        UserError: The file is missing or damaged, or belongs to another process; or a value is out of range.
    """

    def __init__(
        self, source: str = "", revision: str = "", offline: bool = False, spacing: str = "even",
        density: str = "logit_normal", mean: limits.LogitMean = 0.0, deviation: limits.LogitDeviation = 1.0,
        patch_size: limits.Patch = 2, weighting: str = "none", min_snr: limits.MinSnr = 5.0,
        snr_offset: limits.SnrOffset = 1.0,
    ):  # fmt: skip
        if spacing not in ("even", "scheduler"):
            raise UserError(f"diffusion.spacing={spacing}: must be even or scheduler")
        origin = Origin("diffusion", source, revision, offline)
        given = read_config(origin, FOLDER, FILE) if source else {}
        if source and not str(given.get("_class_name")).startswith("FlowMatch"):
            raise UserError(f"{origin.key}: its {FILE} is that of a {given.get('_class_name')}, not of a flow; "
                            "take diffusion=folder")  # fmt: skip
        settings = FlowMatchEulerDiscreteScheduler.from_config(given).config
        super().__init__(settings.num_train_timesteps, density, mean, deviation, settings.shift, "constant", patch_size,
                         weighting, min_snr, snr_offset)  # fmt: skip
        self.config, self.spacing, self.mu = settings, spacing, 0.0

    def at(self, height: int, width: int) -> FolderFlow:
        """This flow with its shift for latents of height x width, if the folder's depends on them."""
        flow, c = copy(self), self.config
        if c.use_dynamic_shifting:
            slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
            flow.mu = c.base_shift + slope * (height * width // self.patch_size**2 - c.base_image_seq_len)
            flow.shift = math.exp(flow.mu) if c.time_shift_type == "exponential" else flow.mu
        return flow

    def scheduler(self, name: str) -> Any:
        """Create a scheduler of diffusers. name: euler, heun or dpm."""
        if name != "euler":
            return super().scheduler(name)
        scheduler = FolderEuler.from_config(self.config)
        scheduler.mu_at, scheduler.even = self.mu_at, self.spacing == "even"
        return scheduler

    def mu_at(self, steps: int) -> float:
        """Return the logarithm of the shift for sampling in this number of steps."""
        return self.mu


class Flux2Flow(FolderFlow):
    """The flow of Flux.2, whose shift depends on the number of steps too; arguments as in `FolderFlow`.

    Training shifts its timesteps as STEPS steps of sampling do.
    """

    tokens = 1  # of an image

    def at(self, height: int, width: int) -> Flux2Flow:
        """This flow with its shift for latents of height x width."""
        flow = copy(self)
        flow.tokens = height * width // self.patch_size**2
        flow.shift = math.exp(flow.mu_at(STEPS))
        return flow

    def mu_at(self, steps: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu  # takes seconds to import

        return compute_empirical_mu(self.tokens, steps)


class FolderEuler(FlowScheduler, FlowMatchEulerDiscreteScheduler):
    """Euler steps at the times of the family's pipeline.

    Attributes:
        mu_at: Number of steps -> logarithm of the shift for the resolution, if the config has use_dynamic_shifting.
        even: Whether times are 1, ..., 1/steps before the shift; otherwise those of diffusers' scheduler.
    """

    order = 1
    mu_at: Callable[[int], float]
    even = True

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        sigmas = np.linspace(1.0, 1 / steps, steps) if self.even else None
        FlowMatchEulerDiscreteScheduler.set_timesteps(self, steps, device, sigmas, self.mu_at(steps))
        self.set_begin_index(0)
