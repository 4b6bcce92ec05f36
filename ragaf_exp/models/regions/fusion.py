"""Fusion (config group `fusion`): the weights of sketch and text in a region token at timestep t.

Every fusion maps (t, region) to weights (B,N,2): [..., 0] sketch, [..., 1] text. A fusion with separate weights for every
channel of a region token returns (B,N,2,R).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.models.layers import zero_module


def _weights(sketch: Tensor, regions: Tensor) -> Tensor:
    """Expand sketch weights (B,) in [0,1] to weights (B,N,2) that sum to 1."""
    sketch = sketch.to(regions.dtype)[:, None].expand(regions.shape[:2])
    return torch.stack([sketch, 1 - sketch], dim=-1)


class FourierTimeEmbedding(nn.Module):
    """Sines and cosines of the timestep."""

    frequency: Tensor

    def __init__(self, frequencies: int):
        super().__init__()
        at_least("fusion", 1, frequencies=frequencies)
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(frequencies) / 2, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed timesteps t (B,) in [0,1]; returns (B, 2 frequencies)."""
        angle = t[:, None] * self.frequency  # (B,frequencies)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Learned(nn.Module):
    """Softmax weights computed from the timestep and optionally the region. They start at one half each.

    Args:
        width: R, channels of a region (wiring).
        hidden: Hidden width of the MLP.
        frequencies: Number of frequencies of the timestep embedding.
        per_region: Whether the weights depend on the region as well.
    """

    def __init__(self, width: int, hidden: limits.Width = 64, frequencies: limits.Frequencies = 8, per_region: bool = True):
        super().__init__()
        at_least("fusion", 1, hidden=hidden)
        self.waves = FourierTimeEmbedding(frequencies)
        self.time = nn.Linear(2 * frequencies, hidden)
        self.region = nn.Linear(width, hidden) if per_region else None
        self.out = zero_module(nn.Linear(hidden, self._outputs(width)))

    @staticmethod
    def _outputs(width: int) -> int:
        return 2

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Compute weights (B,N,2) from timesteps t (B,) in [0,1], 1 = pure noise, and regions (B,N,R)."""
        return self._logits(t, regions).softmax(-1)

    def _logits(self, t: Tensor, regions: Tensor) -> Tensor:
        """Return logits (B,N,outputs) for timesteps t (B,) and regions (B,N,R)."""
        hidden = self.time(self.waves(t))[:, None]  # (B,1,hidden)
        if self.region is not None:
            hidden = hidden + self.region(regions)  # (B,N,hidden)
        return self.out(F.silu(hidden)).expand(*regions.shape[:2], -1)


class Gated(Learned):
    """A sigmoid gate per channel of a region token, which is its sketch weight. It starts at one half.

    Args:
        width: R, channels of a region (wiring).
        hidden: Hidden width of the MLP.
        frequencies: Number of frequencies of the timestep embedding.
        per_region: Whether the gates depend on the region as well.
    """

    @staticmethod
    def _outputs(width: int) -> int:
        return width

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Compute weights (B,N,2,R) from timesteps t (B,) in [0,1], 1 = pure noise, and regions (B,N,R)."""
        gate = self._logits(t, regions).sigmoid()  # (B,N,R)
        return torch.stack([gate, 1 - gate], dim=2)


class Heuristic(nn.Module):
    """A linear schedule: sketch = low + (high - low) t, text = 1 - sketch, so that structure comes first.

    Args:
        width: Not used (wiring).
        low: Sketch weight at t = 0, in [0,1].
        high: Sketch weight at t = 1, pure noise, in [0,1].
    """

    def __init__(self, width: int, low: limits.Share = 0.3, high: limits.Share = 0.9):
        super().__init__()
        _check_range("low", low)
        _check_range("high", high)
        self.low, self.high = low, high

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Compute weights (B,N,2) from timesteps t (B,) in [0,1], 1 = pure noise; regions (B,N,R) give the shape."""
        return _weights(self.low + (self.high - self.low) * t, regions)


class Cosine(Heuristic):
    """A cosine schedule: sketch = low + (high - low) (1 - cos(pi t)) / 2, text = 1 - sketch.

    Args:
        width: Not used (wiring).
        low: Sketch weight at t = 0, in [0,1].
        high: Sketch weight at t = 1, pure noise, in [0,1].
    """

    def __init__(self, width: int, low: limits.Share = 0.1, high: limits.Share = 0.9):
        super().__init__(width, low, high)

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Compute weights (B,N,2) from timesteps t (B,) in [0,1], 1 = pure noise; regions (B,N,R) give the shape."""
        return _weights(self.low + (self.high - self.low) * (1 - torch.cos(math.pi * t)) / 2, regions)


class Hybrid(Learned):
    """A learned blend of the linear schedule and learned weights. It starts with one half of each.

    Args:
        width: R, channels of a region (wiring).
        low: Sketch weight of the schedule at t = 0, in [0,1].
        high: Sketch weight of the schedule at t = 1, pure noise, in [0,1].
        hidden: Hidden width of the MLP.
        frequencies: Number of frequencies of the timestep embedding.
        per_region: Whether the learned weights and the blend depend on the region as well.
    """

    def __init__(
        self, width: int, low: limits.Share = 0.3, high: limits.Share = 0.9, hidden: limits.Width = 64,
        frequencies: limits.Frequencies = 8, per_region: bool = True,
    ):  # fmt: skip
        super().__init__(width, hidden, frequencies, per_region)
        self.heuristic = Heuristic(width, low, high)

    @staticmethod
    def _outputs(width: int) -> int:
        return 3  # two weights and the blend

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Compute weights (B,N,2) from timesteps t (B,) in [0,1], 1 = pure noise, and regions (B,N,R)."""
        logits = self._logits(t, regions)  # (B,N,3)
        blend = logits[..., 2:].sigmoid()  # (B,N,1), share of the learned part
        return blend * logits[..., :2].softmax(-1) + (1 - blend) * self.heuristic(t, regions)


class Fixed(nn.Module):
    """A constant weight at every timestep: sketch=0 uses the text only, sketch=1 the sketch only."""

    def __init__(self, width: int, sketch: limits.Share = 0.5):
        super().__init__()
        _check_range("sketch", sketch)
        self.sketch = sketch

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Return weights (B,N,2) for timesteps t (B,) and regions (B,N,R)."""
        return _weights(torch.full_like(t, self.sketch), regions)


class Unweighted(nn.Module):
    """No weighting: the sketch and text parts are added with weight 1."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """Return weights of 1, (B,N,2), for regions (B,N,R)."""
        return regions.new_ones(*regions.shape[:2], 2)


def _check_range(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"fusion.{key}={value}: must be between 0 and 1")
