"""Injection points: where conditions change a backbone's features, held as feature maps or as grids of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

Shape = tuple[int, int, int]  # channels, height, width
OUT = "out"  # the injection point at full resolution, of a backbone that has a pixel head


def shape_of(features: Tensor) -> Shape:
    """Of a feature map (B,C,h,w)."""
    return (features.shape[1], features.shape[2], features.shape[3])


class Modulation(Protocol):
    """Changes the features at one injection point."""

    def __call__(self, features: Tensor, /) -> Tensor:
        """(B,C,h,w) -> (B,C,h,w)."""


@dataclass(frozen=True)
class Injected:
    """What changes a backbone's features: h -> modulation(h + residual) at each injection point that has either."""

    residuals: Mapping[str, Tensor]  # injection point -> (B,C,h,w)
    modulations: Mapping[str, Modulation] = field(default_factory=dict)

    def on_map(self, point: str, features: Tensor) -> Tensor:
        """features (B,C,h,w)."""
        if point in self.residuals:
            features = features + self.residuals[point]
        return self.modulations[point](features) if point in self.modulations else features

    def on_tokens(self, point: str, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """tokens (B,h w,C) in row-major order, of a grid of `size` (h,w)."""
        if point not in self.residuals and point not in self.modulations:
            return tokens
        features = tokens.transpose(1, 2).unflatten(2, size)  # (B,C,h,w)
        return self.on_map(point, features).flatten(2).transpose(1, 2)
