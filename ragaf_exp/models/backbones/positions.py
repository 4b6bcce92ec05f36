"""Position encodings of token grids of any height and width."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each (h w, d/2) float32
BASE = 100.0  # ratio of the longest wavelength to the shortest: grids are at most a few hundred tokens wide


class Positions(ABC):
    """A position encoding, either added to the tokens or applied to queries and keys as a rotation."""

    divisor: int  # the channels of a head must be a multiple of it

    @abstractmethod
    def embedding(self, height: int, width: int, channels: int, device: torch.device) -> Tensor | None:
        """Return the embedding that is added to the tokens before the first block.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.
            channels: Channels of a token.
            device: Device of the result.

        Returns:
            (h w, channels) float32; None for encodings that are not added.
        """

    @abstractmethod
    def rotation(self, height: int, width: int, channels: int, device: torch.device) -> Rotation | None:
        """Return the rotation that is applied to queries and keys in every layer.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.
            channels: d, channels of a head.
            device: Device of the result.

        Returns:
            Cosines and sines, each (h w, d/2) float32; None for encodings without a rotation.
        """


class SinCos(Positions):
    """Sines and cosines of row and column (Peebles & Xie 2023), measured from the centre of the grid."""

    divisor = 1

    def embedding(self, height: int, width: int, channels: int, device: torch.device) -> Tensor:
        """Return sines and cosines of the positions.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.
            channels: Channels of a token.
            device: Device of the result.

        Returns:
            (h w, channels) float32.
        """
        half = channels // 4
        angles = _angles(height, width, half, device)  # (h w, 2, half)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)

    def rotation(self, height: int, width: int, channels: int, device: torch.device) -> None:
        """Return None: queries and keys are not rotated.

        Args:
            height: Not used.
            width: Not used.
            channels: Not used.
            device: Not used.
        """
        return None


class Rotary(Positions):
    """Rotary embeddings (Su et al. 2021, arXiv 2104.09864) on two axes, with half of a head's channels for each."""

    divisor = 4

    def embedding(self, height: int, width: int, channels: int, device: torch.device) -> None:
        """Return None: nothing is added to the tokens.

        Args:
            height: Not used.
            width: Not used.
            channels: Not used.
            device: Not used.
        """
        return None

    def rotation(self, height: int, width: int, channels: int, device: torch.device) -> Rotation:
        """Return the rotation by row and column.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.
            channels: d, channels of a head.
            device: Device of the result.

        Returns:
            Cosines and sines, each (h w, d/2) float32.
        """
        angles = _angles(height, width, channels // 4, device).flatten(1)  # (h w, channels / 2)
        return angles.cos(), angles.sin()


def _angles(height: int, width: int, frequencies: int, device: torch.device) -> Tensor:
    """Return row and column of each token, relative to the centre, times every frequency: (h w, 2, frequencies)."""
    rows = torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2
    columns = torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (h w, 2)
    steps = torch.arange(frequencies, device=device, dtype=torch.float32) / frequencies
    return grid[..., None] * torch.exp(-math.log(BASE) * steps)


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotate pairs of channels of x (B,heads,L,d) by the tokens' angles; returns the same shape."""
    if rotation is None:
        return x
    cos, sin = (r.to(x.dtype) for r in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


POSITIONS: dict[str, type[Positions]] = {"rotary": Rotary, "sincos": SinCos}
