"""What every diffusion process provides; a new one is a class of its own, and nothing else knows which it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor, nn


class Process(nn.Module, ABC):
    """A path from data x_0 to noise, and what a network predicts along it.

    timesteps: T; they are numbered from 0 (data) to T - 1 (noise). schedulers: the names of its samplers.
    """

    timesteps: int
    schedulers: tuple[str, ...]

    def at(self, height: int, width: int) -> Process:
        """The process for latents of height x width; itself, unless it depends on the resolution."""
        return self

    def sample_timesteps(self, count: int, last: int, generator: Generator) -> Tensor:
        """(count,) on the CPU; uniform whole numbers in [0, last), unless the process has a density of another kind."""
        return torch.randint(0, last, (count,), generator=generator)

    @abstractmethod
    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_0, noise (B,C,h,w), timesteps t (B,) -> x_t (B,C,h,w)."""

    @abstractmethod
    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network learns to predict from x_t, (B,C,h,w)."""

    @abstractmethod
    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 that a prediction amounts to, (B,C,h,w)."""

    def from_x0(self, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction that amounts to an estimate of x_0, the inverse of `to_x0`.

        For given x_t, `to_x0` is affine in the prediction, for every process.
        """
        zero = torch.zeros_like(x_t)
        slope = self.to_x0(torch.ones_like(x_t), zero, t)
        return (x_0 - self.to_x0(zero, x_t, t)) / slope

    @abstractmethod
    def weight(self, t: Tensor) -> Tensor:
        """Weight (B,) of the squared error of the prediction at timesteps t (B,)."""

    @abstractmethod
    def scheduler(self, name: str) -> Any:
        """A fresh sampler of diffusers' kind. name: one of `schedulers`."""

    def check_pretrained(self, wanted: dict[str, Any]) -> None:
        """UserError where a backbone was trained with another process. wanted: its scheduler's settings."""
