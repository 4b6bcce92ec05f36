"""The sampler (config group `sampler`): schedulers of diffusers, with guidance by text, sketch and image."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.denoiser import Denoiser, prediction_of
from ragaf_exp.diffusion.keeping import Known, Step, Watch


class Sampler:
    """Deterministic sampling of either stage.

    Classifier-free guidance: Ho & Salimans 2022, arXiv 2207.12598; with several conditions: Brooks et al. 2023, arXiv
    2211.09800, eq. 3.

    Args:
        diffusion: The process (wiring).
        scheduler: ddim, dpm (DPM-Solver++ 2M) or euler; euler, heun or dpm for a flow.
        steps: Steps of the whole schedule. A stage that starts from a latent runs the last `strength` share.
        guidance: Text guidance scale, 1 = none.
        sketch_guidance: Sketch guidance scale, 1 = none.
        norm_patch: Side in latent cells of patches whose norm guidance leaves as it is without guidance, as in Qwen-Image's
            pipeline; 0 = guidance changes norms.
        image_guidance: Guidance scale of the image that a task edits, 1 = none.

    Raises:
        UserError: The scheduler is unknown, or a value is out of range.
    """

    def __init__(
        self, diffusion: Process, scheduler: str = "ddim", steps: limits.SamplingSteps = 20,
        guidance: limits.Guidance = 1.0, sketch_guidance: limits.Guidance = 1.0, norm_patch: limits.PatchOrNone = 0,
        image_guidance: limits.Guidance = 1.0,
    ):  # fmt: skip
        if scheduler not in diffusion.schedulers:
            raise UserError(f"sampler.scheduler={scheduler}: must be one of {sorted(diffusion.schedulers)}")
        if not 1 <= steps <= diffusion.timesteps:
            raise UserError(f"sampler.steps={steps}: must be between 1 and {diffusion.timesteps}")
        scales = {"guidance": guidance, "sketch_guidance": sketch_guidance, "image_guidance": image_guidance}
        for key, value in scales.items():
            if not 0 <= value <= 100:
                raise UserError(f"sampler.{key}={value}: must be between 0 and 100")
        self.diffusion, self.steps, self.scheduler = diffusion, steps, scheduler
        self.guidance, self.sketch_guidance, self.image_guidance = guidance, sketch_guidance, image_guidance
        self.norm_patch = norm_patch

    @torch.no_grad()
    def sample(
        self, model: Denoiser, batch: Batch, noise: Tensor, start: Tensor | None = None, strength: float = 1.0,
        known: Known | None = None, watch: Watch | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Sample latents.

        Args:
            model: The denoiser.
            batch: The conditions.
            noise: Standard normal, (B,C,h,w).
            start: Latents that sampling starts from, noised to `strength`, (B,C,h,w). The model may also take them as
                an input.
            strength: Share of the steps that are run if `start` is given, in (0,1].
            known: A latent of which only a part is sampled.
            watch: Called after every step; may raise Stopped.

        Returns:
            The latents, (B,C,h,w), and their conditioning.

        Raises:
            UserError: `norm_patch` does not divide the latents' sides, or `strength` is out of range.
        """
        self.check(noise.shape[2], noise.shape[3])
        conditions = [(weight, model.with_start(c, start)) for weight, c in self._conditions(model, batch)]
        scheduler = self.diffusion.at(noise.shape[2], noise.shape[3]).scheduler(self.scheduler)
        scheduler.set_timesteps(self.steps, device=noise.device)
        timesteps, x = self.begin(scheduler, noise, start, strength)
        for number, t in enumerate(timesteps, 1):
            x_t = scheduler.scale_model_input(x, t)
            prediction = self._guided(model, x_t, t, conditions)
            times = t.long().expand(len(x_t))
            if known is not None:
                prediction = known.blended(self.diffusion, prediction, x_t, times)
            out = scheduler.step(prediction, t, x)
            x = out.prev_sample
            if watch is not None:
                watch(Step(number, len(timesteps), int(t), self.diffusion.to_x0(prediction, x_t, times)))
        # if `steps` does not divide the schedule, DDIM in diffusers leaves some noise in prev_sample
        return out.get("pred_original_sample", x), conditions[0][1]

    def check(self, height: int, width: int) -> None:
        """Raise UserError if latents of this height and width, in cells, can't be sampled."""
        if self.norm_patch and (height % self.norm_patch or width % self.norm_patch):
            raise UserError(f"sampler.norm_patch={self.norm_patch}: must divide the latents' sides, {height} x {width}; "
                            "set a divisor, or 0")  # fmt: skip

    def passes(self) -> list[tuple[float, dict[str, bool]]]:
        """Return the passes of the network in a step: weight of the prediction, and which conditions the pass has.

        The weighted predictions add up to the guided one, e(0,0,0) + image (e(i,0,0) - e(0,0,0)) + sketch (e(i,s,0) -
        e(i,0,0)) + text (e(i,s,c) - e(i,s,0)). The first pass has all conditions.
        """
        text, sketch, image = self.guidance, self.sketch_guidance, self.image_guidance
        weights = (text, sketch - text, image - sketch, 1 - image)
        return [(weight, {"text": dropped < 1, "sketch": dropped < 2, "image": dropped < 3})
                for dropped, weight in enumerate(weights) if weight != 0 or dropped == 0]  # fmt: skip

    def _conditions(self, model: Denoiser, batch: Batch) -> list[tuple[float, Any]]:
        """Return the weight and the conditions of each pass."""
        given = torch.ones(len(batch), dtype=torch.bool, device=batch.image.device)
        return [(weight, model.condition(batch, {name: given & one for name, one in keep.items()}))
                for weight, keep in self.passes()]  # fmt: skip

    def begin(self, scheduler: Any, noise: Tensor, start: Tensor | None, strength: float) -> tuple[Tensor, Tensor]:
        """Return the timesteps that are run, and the latent at the first of them.

        Args:
            scheduler: The scheduler, with its timesteps set.
            noise: Standard normal, (B,C,h,w).
            start: The latent that sampling starts from, (B,C,h,w); None = from noise.
            strength: Share of the timesteps that are run from there, in (0,1].

        Raises:
            UserError: `strength` is out of range.
        """
        if not 0 < strength <= 1:
            raise UserError(f"stage.strength={strength}: must be above 0 and at most 1")
        if start is None or strength == 1:
            return scheduler.timesteps, noise * scheduler.init_noise_sigma
        steps = -(-len(scheduler.timesteps) // scheduler.order)  # a scheduler of order 2 calls the network twice per step
        first = scheduler.order * (steps - max(1, round(steps * strength)))
        timesteps = scheduler.timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):  # otherwise multistep solvers search for the timestep
            scheduler.set_begin_index(first)
        return timesteps, scheduler.add_noise(start, noise, timesteps[:1].expand(len(noise)))

    def _guided(self, model: Denoiser, x_t: Tensor, t: Tensor, conditions: list[tuple[float, Any]]) -> Tensor:
        times = torch.full((len(x_t),), float(t), device=x_t.device)
        guided, norm = torch.zeros_like(x_t, dtype=torch.float32), None
        for weight, c in conditions:
            predicted = prediction_of(model.denoise(x_t, times, c)).float()
            if self.norm_patch and norm is None:  # of the first, which has all conditions
                norm = patch_norm(predicted, self.norm_patch)
            guided = guided + weight * predicted
        return guided if norm is None else guided * (norm / patch_norm(guided, self.norm_patch))


def patch_norm(x: Tensor, patch: int) -> Tensor:
    """Return at each cell of x (B,C,h,w) the norm of its patch of patch x patch cells over all channels, (B,1,h,w)."""
    squares = F.avg_pool2d(x.square().sum(1, keepdim=True), patch) * patch**2
    return F.interpolate(squares.sqrt(), scale_factor=patch)
