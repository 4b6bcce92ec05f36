"""Injection points, at which conditions change a backbone's feature maps or token grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ragaf_exp.core.errors import UserError

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


def check_residual_shapes(key: str, what: str, given: dict[str, Shape], taken: dict[str, Shape]) -> list[str]:
    """Check that an encoder's outputs fit the UNet.

    Args:
        key: Config key of the encoder, for messages.
        what: Kind of output, for messages.
        given: Injection point -> (C,h,w) of the encoder's output.
        taken: Injection point -> (C,h,w) of the UNet.

    Returns:
        The injection points.

    Raises:
        UserError: A shape disagrees.
    """
    if len(given) != len(taken):
        raise UserError(f"{key}: has {len(given)} {what} outputs, but the backbone takes {len(taken)}; use a hint encoder "
                        "made for this backbone")  # fmt: skip
    for point, shape in given.items():
        if shape != taken.get(point):
            raise UserError(f"{key}: its output at {point} has the shape {shape} (channels, height, width), but the "
                            f"backbone takes {taken.get(point)}; use a hint encoder made for this backbone")  # fmt: skip
    return list(given)
