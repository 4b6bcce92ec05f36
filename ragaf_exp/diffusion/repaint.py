"""RePaint: inpainting with any trained denoiser, by resampling (Lugmayr et al. 2022, arXiv 2201.09865, algorithm 1).

At every timestep the known pixels are replaced by the given ones, noised to that timestep. To make the sampled pixels
consistent with them, the sampler repeatedly goes back `jump` steps by adding noise, and denoises again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import item_noise
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.denoiser import Denoiser
from ragaf_exp.diffusion.keeping import Known, Step, Watch
from ragaf_exp.diffusion.sampler import Sampler


@dataclass
class Calls:
    """Numbers of denoiser calls per image, including those for guidance, and of renoising steps."""

    denoisings: int = 0
    renoisings: int = 0


def walk(steps: int, jump: int, resamplings: int) -> Iterator[int]:
    """Yield the noise levels that sampling passes through, from `steps` (noise) to 0 (data).

    At every multiple of `jump` below steps - jump, the walk climbs `jump` levels and descends again, resamplings - 1 times.
    With 250 steps, jump 10 and 10 resamplings there are 2,410 denoisings and 2,160 renoisings, as in the paper.

    Args:
        steps: Number of levels above 0.
        jump: Levels climbed at once.
        resamplings: Passes over each part, r in the paper; 1 = no resampling.

    Yields:
        Levels; the next one is lower by one (a denoising) or higher by one (a renoising).
    """
    left = {level: resamplings - 1 for level in range(0, steps - jump, jump)}
    level = steps
    yield level
    while level > 0:
        level -= 1
        yield level
        if left.get(level, 0) > 0:
            left[level] -= 1
            for _ in range(jump):
                level += 1
                yield level


class RePaint(Sampler):
    """A sampler that keeps the known pixels of an image.

    Args:
        diffusion: Any linear process, since RePaint has its own ancestral steps (wiring).
        known: Maps a batch to its known latent and the part that is sampled (wiring).
        seed: Seed of the noise that is added while sampling (wiring).
        steps: Noise levels of one descent.
        jump: Levels climbed at once.
        resamplings: Passes over each part; 1 = no resampling.
        guidance: Text guidance scale, as in Sampler.
        sketch_guidance: Sketch guidance scale, as in Sampler.
        image_guidance: Guidance scale of the known part, for a task that has it as a condition, as in Sampler.

    Raises:
        UserError: A value is out of range.
    """

    def __init__(
        self, diffusion: Process, known: Callable[[Batch], Known], seed: int = 0, steps: limits.SamplingSteps = 50,
        jump: int = 5, resamplings: int = 5, guidance: limits.Guidance = 1.0, sketch_guidance: limits.Guidance = 1.0,
        image_guidance: limits.Guidance = 1.0,
    ):  # fmt: skip
        super().__init__(diffusion, diffusion.schedulers[0], steps, guidance, sketch_guidance, 0, image_guidance)
        if not 1 <= jump <= steps:
            raise UserError(f"jump={jump}: must be from 1 to steps={steps}; take {max(1, steps // 10)}")
        if not 1 <= resamplings <= 100:
            raise UserError(f"resamplings={resamplings}: must be from 1 (none) to 100; the paper takes 10")
        self.known, self.seed, self.jump, self.resamplings = known, seed, jump, resamplings
        self.calls = Calls()

    @torch.no_grad()
    def sample(
        self, model: Denoiser, batch: Batch, noise: Tensor, start: Tensor | None = None, strength: float = 1.0,
        known: Known | None = None, watch: Watch | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Sample latents that equal the given ones at the known pixels.

        Args:
            model: The denoiser.
            batch: The conditions.
            noise: Standard normal, (B,C,h,w).
            start: Latents that sampling starts from, noised to `strength`, (B,C,h,w).
            strength: Share of the levels that are run if `start` is given, in (0,1].
            known: Replaces the known latent of the batch.
            watch: Called after every denoising step; may raise Stopped.

        Returns:
            The latents, (B,C,h,w), and their conditioning.
        """
        known = known or self.known(batch)
        conditions = [(weight, model.with_start(c, start)) for weight, c in self._conditions(model, batch)]
        levels = _Levels(self.diffusion, self.steps, noise)
        first = self.steps if start is None else max(1, round(self.steps * strength))
        fresh = _Noise(self.seed, batch.keys, noise)
        path = list(walk(first, min(self.jump, first), self.resamplings))
        x = levels.noised(torch.zeros_like(noise) if start is None else start, noise, first)
        for number, (level, following) in enumerate(zip(path, path[1:], strict=False), 1):
            if following > level:
                x = levels.climb(x, level, following, fresh())
                self.calls.renoisings += 1
                continue
            x = x.where(known.redo, levels.noised(known.latent, fresh(), level))
            guided = self._guided(model, x, levels.timestep(level), conditions)
            self.calls.denoisings += len(conditions)
            x_0 = self.diffusion.to_x0(guided, x, levels.batch_timesteps(level))
            x = levels.descend(x, x_0, level, fresh)
            if watch is not None:
                watch(Step(number, len(path) - 1, int(levels.timestep(level)), x_0))
        return x.where(known.redo, known.latent), conditions[0][1]


@dataclass
class _Noise:
    """Standard normal noise, a function of the seed, the item's key and the number of calls so far."""

    seed: int
    keys: list[str]
    like: Tensor
    uses: int = field(default=0)

    def __call__(self) -> Tensor:
        self.uses += 1
        return item_noise(self.seed, f"repaint/{self.uses}", self.keys, self.like.shape[1:]).to(self.like)


class _Levels:
    """Noise levels 0 (data) to `steps` of a linear process, x = signal * x_0 + scale * noise."""

    def __init__(self, process: Process, steps: int, like: Tensor):
        self.process, self.like = process, like
        # trailing spacing: the highest level is the last timestep
        self.timesteps = [-1, *(round(process.timesteps * (i + 1) / steps) - 1 for i in range(steps))]
        one, zero = (torch.full((1, 1, 1, 1), value, device=like.device) for value in (1.0, 0.0))
        times = [torch.tensor([t], device=like.device) for t in self.timesteps[1:]]
        self.signal = [1.0, *(float(process.add_noise(one, zero, t)) for t in times)]
        self.scale = [0.0, *(float(process.add_noise(zero, one, t)) for t in times)]

    def timestep(self, level: int) -> Tensor:
        return torch.tensor(self.timesteps[level], device=self.like.device)

    def batch_timesteps(self, level: int) -> Tensor:
        """(B,) int64."""
        return torch.full((len(self.like),), self.timesteps[level], device=self.like.device)

    def noised(self, x_0: Tensor, noise: Tensor, level: int) -> Tensor:
        return self.signal[level] * x_0 + self.scale[level] * noise

    def _variance(self, low: int, high: int) -> tuple[float, float]:
        """The factor on the signal from one level to a higher one, and the variance of the added noise."""
        ratio = self.signal[high] / self.signal[low]
        return ratio, max(self.scale[high] ** 2 - (ratio * self.scale[low]) ** 2, 0.0)

    def climb(self, x: Tensor, low: int, high: int, noise: Tensor) -> Tensor:
        """Add the noise between two levels; for a variance-preserving process x sqrt(1 - beta) + noise sqrt(beta)."""
        ratio, variance = self._variance(low, high)
        return ratio * x + variance**0.5 * noise

    def descend(self, x: Tensor, x_0: Tensor, level: int, noise: Callable[[], Tensor]) -> Tensor:
        """Sample the next lower level, given an estimate of x_0: the posterior of DDPM (Ho et al. 2020, eq. 7)."""
        low, (ratio, added) = level - 1, self._variance(level - 1, level)
        if low == 0:
            return x_0
        of_level, of_low = self.scale[level] ** 2, self.scale[low] ** 2
        mean = (self.signal[low] * added / of_level) * x_0 + (ratio * of_low / of_level) * x
        return mean + (added * of_low / of_level) ** 0.5 * noise()
