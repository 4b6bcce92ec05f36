"""Fusion (config group `fusion`): how much of a region token is sketch and how much is text, at timestep t.

Every fusion maps (t, region) to weights (B,N,2): [..., 0] sketch, [..., 1] text.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ragaf_exp.errors import UserError, at_least


def _weights(sketch: Tensor, regions: Tensor) -> Tensor:
    """sketch (B,) in [0,1] -> (B,N,2), summing to 1."""
    sketch = sketch.to(regions.dtype)[:, None].expand(regions.shape[:2])
    return torch.stack([sketch, 1 - sketch], dim=-1)


class Learned(nn.Module):
    """Softmax weights from the timestep and the region itself; half and half at the start."""

    def __init__(self, width: int, hidden: int = 64, frequencies: int = 8):
        super().__init__()
        at_least("fusion", 1, hidden=hidden, frequencies=frequencies)
        self.register_buffer("frequency", math.pi * 2.0 ** torch.arange(frequencies) / 2, persistent=False)
        self.time = nn.Linear(2 * frequencies, hidden)
        self.region = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        """t (B,) in [0,1], 1 = pure noise; regions (B,N,R) -> (B,N,2)."""
        angle = t[:, None] * self.frequency  # (B,frequencies)
        time = self.time(torch.cat([angle.sin(), angle.cos()], dim=-1))[:, None]  # (B,1,hidden)
        return self.out(torch.nn.functional.silu(time + self.region(regions))).softmax(-1)


class Heuristic(nn.Module):
    """Linear hand-over: sketch = low + (high - low) t, text the rest (structure early, semantics late)."""

    def __init__(self, width: int, low: float = 0.3, high: float = 0.9):
        super().__init__()
        _check_range("low", low)
        _check_range("high", high)
        self.low, self.high = low, high

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        return _weights(self.low + (self.high - self.low) * t, regions)


class Cosine(Heuristic):
    """Cosine hand-over: sketch = low + (high - low) (1 - cos(pi t)) / 2."""

    def __init__(self, width: int, low: float = 0.1, high: float = 0.9):
        super().__init__(width, low, high)

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        return _weights(self.low + (self.high - self.low) * (1 - torch.cos(math.pi * t)) / 2, regions)


class Fixed(nn.Module):
    """The same weight at every timestep; sketch=0 leaves the text alone, sketch=1 the sketch."""

    def __init__(self, width: int, sketch: float = 0.5):
        super().__init__()
        _check_range("sketch", sketch)
        self.sketch = sketch

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        return _weights(torch.full_like(t, self.sketch), regions)


class Unweighted(nn.Module):
    """No fusion: sketch and text are both passed on whole."""

    def __init__(self, width: int):
        super().__init__()

    def forward(self, t: Tensor, regions: Tensor) -> Tensor:
        return regions.new_ones(*regions.shape[:2], 2)


def _check_range(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"fusion.{key}={value}: must be between 0 and 1")
