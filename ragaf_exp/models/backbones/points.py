"""Injection points, at which conditions change a backbone's feature maps or token grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

Shape = tuple[int, int, int]  # channels, height, width
OUT = "out"  # the injection point at full resolution, in backbones with a pixel head


def shape_of(features: Tensor) -> Shape:
    """Return (C,h,w) of a feature map (B,C,h,w)."""
    return (features.shape[1], features.shape[2], features.shape[3])


class Modulation(Protocol):
    """Changes the features at one injection point."""

    def __call__(self, features: Tensor, /) -> Tensor:
        """Map features (B,C,h,w) to features of the same shape."""


@dataclass(frozen=True)
class Injected:
    """Residuals and modulations of a backbone's features: h -> modulation(h + residual) at each injection point."""

    residuals: Mapping[str, Tensor]  # injection point -> (B,C,h,w)
    modulations: Mapping[str, Modulation] = field(default_factory=dict)

    def on_map(self, point: str, features: Tensor) -> Tensor:
        """Apply the residual and the modulation of an injection point to a feature map (B,C,h,w)."""
        if point in self.residuals:
            features = features + self.residuals[point]
        return self.modulations[point](features) if point in self.modulations else features

    def on_tokens(self, point: str, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Apply the residual and the modulation of an injection point to a token grid.

        Args:
            point: Name of the injection point.
            tokens: (B,h w,C), in row-major order.
            size: Height and width of the grid, (h,w).

        Returns:
            (B,h w,C).
        """
        if point not in self.residuals and point not in self.modulations:
            return tokens
        features = tokens.transpose(1, 2).unflatten(2, size)  # (B,C,h,w)
        return self.on_map(point, features).flatten(2).transpose(1, 2)
