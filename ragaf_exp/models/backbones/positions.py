"""Positions of a grid's tokens, computed for the size at hand: any height and width."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each (h w, d/2) float32
BASE = 100.0  # ratio of the longest wavelength to the shortest: grids have up to a few hundred tokens a side


class Positions(ABC):
    """How a transformer knows where its tokens are."""

    divisor: int  # of the channels of a head

    @abstractmethod
    def embedding(self, height: int, width: int, channels: int, device: torch.device) -> Tensor | None:
        """Embedding that is added to the tokens once.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.
            channels: Of a token.
            device: Of the result.

        Returns:
            (h w, channels) float32; None for positions that enter elsewhere.
        """

    @abstractmethod
    def rotation(self, height: int, width: int, channels: int, device: torch.device) -> Rotation | None:
        """The rotation of queries and keys in every layer.

        Args:
            height: Rows of the grid.
            width: Columns of the grid.
            channels: Of a head.
            device: Of the result.

        Returns:
            Cosines and sines; None for positions that enter elsewhere.
        """


class SinCos(Positions):
    """Sines and cosines of row and column (Peebles & Xie 2023), measured from the centre of the grid."""

    divisor = 1

    def embedding(self, height: int, width: int, channels: int, device: torch.device) -> Tensor:
        half = channels // 4
        angles = _angles(height, width, half, device)  # (h w, 2, half)
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)

    def rotation(self, height: int, width: int, channels: int, device: torch.device) -> None:
        return None


class Rotary(Positions):
    """Rotary embeddings (Su et al. 2021, arXiv 2104.09864) on two axes: half of a head's channels for each."""

    divisor = 4

    def embedding(self, height: int, width: int, channels: int, device: torch.device) -> None:
        return None

    def rotation(self, height: int, width: int, channels: int, device: torch.device) -> Rotation:
        angles = _angles(height, width, channels // 4, device).flatten(1)  # (h w, channels / 2)
        return angles.cos(), angles.sin()


def _angles(height: int, width: int, frequencies: int, device: torch.device) -> Tensor:
    """(h w, 2, frequencies): row and column of each token, relative to the centre, at every frequency."""
    rows = torch.arange(height, device=device, dtype=torch.float32) - (height - 1) / 2
    columns = torch.arange(width, device=device, dtype=torch.float32) - (width - 1) / 2
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)  # (h w, 2)
    steps = torch.arange(frequencies, device=device, dtype=torch.float32) / frequencies
    return grid[..., None] * torch.exp(-math.log(BASE) * steps)


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotate pairs of channels of x (B,heads,tokens,d) by the tokens' angles."""
    if rotation is None:
        return x
    cos, sin = (r.to(x.dtype) for r in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


POSITIONS: dict[str, type[Positions]] = {"rotary": Rotary, "sincos": SinCos}
