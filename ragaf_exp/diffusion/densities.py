"""Densities of timesteps for training a flow, and their shift by resolution; time runs from 0 (data) to 1 (noise)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-12  # keeps logits finite at both ends, in float64


class Density(ABC):
    """A density on [0,1], given by its CDF and quantile function so that it can be truncated exactly."""

    @abstractmethod
    def cdf(self, time: float) -> float:
        """Probability of a time below `time`."""

    @abstractmethod
    def quantile(self, share: Tensor) -> Tensor:
        """The time below which `share` (B,) of the probability lies."""


class Uniform(Density):
    def cdf(self, time: float) -> float:
        return time

    def quantile(self, share: Tensor) -> Tensor:
        return share


@dataclass(frozen=True)
class LogitNormal(Density):
    """The logit of the time is normal: more times in the middle (Esser et al. 2024, arXiv 2403.03206, eq. 19)."""

    mean: float = 0.0
    deviation: float = 1.0

    def cdf(self, time: float) -> float:
        logit = torch.logit(torch.tensor(time, dtype=torch.float64), EPSILON)
        return float(torch.special.ndtr((logit - self.mean) / self.deviation))

    def quantile(self, share: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.deviation * torch.special.ndtri(share.clamp(EPSILON, 1 - EPSILON)))


class CosMap(Density):
    """The density whose log-SNR follows the cosine schedule's (Esser et al. 2024, eq. 21)."""

    def cdf(self, time: float) -> float:
        return 2 / math.pi * math.atan2(time, 1 - time)

    def quantile(self, share: Tensor) -> Tensor:
        tangent = torch.tan(math.pi / 2 * share.clamp(max=1 - EPSILON))
        return tangent / (1 + tangent)


def make_density(name: str, mean: float, deviation: float) -> Density:
    """Create a density by name.

    Args:
        name: One of DENSITIES.
        mean: Mean of the logit, for logit_normal.
        deviation: Standard deviation of the logit, for logit_normal.

    Returns:
        The density.
    """
    return {"uniform": Uniform(), "logit_normal": LogitNormal(mean, deviation), "cosmap": CosMap()}[name]


DENSITIES = ("cosmap", "logit_normal", "uniform")


def constant_shift(tokens: float) -> float:
    """Return 1: no dependence on the resolution."""
    return 1.0


def sd3_shift(tokens: float) -> float:
    """Square root of the ratio of resolutions, relative to 256 tokens (Esser et al. 2024, eq. 23)."""
    return math.sqrt(tokens / 256)


def flux_shift(tokens: float) -> float:
    """e^mu, with mu linear in the number of tokens: 0.5 at 256 and 1.15 at 4,096, as in the Flux pipelines."""
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))


SHIFTS = {"constant": constant_shift, "sd3": sd3_shift, "flux": flux_shift}


def shifted(time: Tensor, shift: float) -> Tensor:
    """Map time t (B,) in [0,1] to shift t / (1 + (shift - 1) t). A shift above 1 moves times towards the noise."""
    return shift * time / (1 + (shift - 1) * time)
