"""The interface of diffusion processes. A new process is one more subclass; no other code depends on which it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor, nn

FLOW = "flow"  # the prediction type in `Backbone.schedule` of networks that were trained as a flow


class Process(nn.Module, ABC):
    """A path from data x_0 to noise, and the quantity that a network predicts along it.

    Attributes:
        timesteps: T. Timesteps run from 0 (data) to T - 1 (noise).
        schedulers: Names of its samplers.
    """

    timesteps: int
    schedulers: tuple[str, ...]

    def at(self, height: int, width: int) -> Process:
        """Return the process for latents of height x width: itself, unless it depends on the resolution."""
        return self

    def sample_timesteps(self, count: int, last: int, generator: Generator) -> Tensor:
        """Sample timesteps for training, uniformly unless a subclass has another density.

        Args:
            count: Number of timesteps.
            last: Exclusive upper end, in [1, T].
            generator: A CPU generator.

        Returns:
            Integers in [0, last), (count,) on the CPU.
        """
        return torch.randint(0, last, (count,), generator=generator)

    @abstractmethod
    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Noise clean latents to the given timesteps.

        Args:
            x_0: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            x_t, (B,C,h,w).
        """

    @abstractmethod
    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Compute the training target of the prediction from x_t.

        Args:
            x_0: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            The target, (B,C,h,w).
        """

    @abstractmethod
    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert a prediction to an estimate of x_0.

        Args:
            prediction: Output of the network, (B,C,h,w).
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            The estimate, (B,C,h,w).
        """

    def from_x0(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert an estimate of x_0 to a prediction, as the inverse of `to_x0`.

        This works for every process in which `to_x0` is affine in the prediction.

        Args:
            x_0: The estimate, (B,C,h,w).
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            The prediction, (B,C,h,w).
        """
        zero = torch.zeros_like(x_t)
        slope = self.to_x0(torch.ones_like(x_t), zero, t)
        return (x_0 - self.to_x0(zero, x_t, t)) / slope

    @abstractmethod
    def weight(self, t: Tensor) -> Tensor:
        """Weight (B,) of the squared error of the prediction at timesteps t (B,)."""

    @abstractmethod
    def scheduler(self, name: str) -> Any:
        """Create a scheduler with the interface of diffusers. name: one of `schedulers`."""

    def check_pretrained(self, wanted: dict[str, Any]) -> None:
        """Raise UserError if a backbone was trained with another process. wanted: settings of its scheduler."""
