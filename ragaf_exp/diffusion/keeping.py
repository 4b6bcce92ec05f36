"""Sampling a part of an image while the rest stays unchanged, and observing the steps of sampling.

The estimate of x_0 is blended at every step, not x_t as in RePaint (Lugmayr et al. 2022, arXiv 2201.09865). Multistep
solvers then have a consistent history, and the known image needs no noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from ragaf_exp.diffusion.base import Process


class Stopped(Exception):
    """Raised by a `watch` to stop sampling."""


@dataclass(frozen=True)
class Step:
    """One step of a sampler."""

    number: int  # counted from 1
    count: int  # total number of steps
    t: int  # timestep
    x0: Tensor  # (B,C,h,w) estimate of x_0


Watch: TypeAlias = Callable[[Step], object]  # may raise Stopped


@dataclass(frozen=True)
class Known:
    """A known latent, of which only a part is sampled."""

    latent: Tensor  # (B,C,h,w)
    redo: Tensor  # (B,1,h,w) bool, True where the latent is sampled

    def blended(self, process: Process, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Replace the estimate of x_0 outside the part that is sampled.

        Args:
            process: The diffusion process.
            prediction: Output of the network, (B,C,h,w).
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,) int64.

        Returns:
            The prediction that corresponds to the blended estimate, (B,C,h,w).
        """
        x_0 = process.to_x0(prediction, x_t, t)
        return process.from_x0(x_0.where(self.redo, self.latent.to(x_0.dtype)), x_t, t)
