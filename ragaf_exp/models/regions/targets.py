"""Region targets: per-region statistics of the image that region tokens are trained to predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ragaf_exp.models.regions.pooling import pool

EMPTY = 1e-3  # a region that covers less than so much of a cell covers nothing


INTERIOR = 8  # power of a cell's share: 1 stays 1, and a border cell, which holds the neighbour too, hardly counts


def mean(x0: Tensor, masks: Tensor) -> Tensor:
    """The mean of x0 over the region: its colour."""
    return pool(x0, masks)


def moments(x0: Tensor, masks: Tensor) -> Tensor:
    """Means of x0 times 1st and 2nd order Hermite polynomials of the place in the region: its low frequencies.

    Places u, v are relative to the region's centroid, in units of its standard deviation along each side, so that
    the polynomials u, v, (u^2-1)/sqrt 2, uv, (v^2-1)/sqrt 2 are orthonormal over a Gaussian blob.
    """
    weight = _normalised(masks)  # (B,N,hw)
    u, v = _places(weight, masks.shape[2:])
    waves = torch.stack([u, v, (u * u - 1) / 2**0.5, u * v, (v * v - 1) / 2**0.5], dim=2)  # (B,N,5,hw)
    found = (weight[:, :, None] * waves).flatten(1, 2) @ x0.flatten(2).transpose(1, 2)  # (B,5N,C)
    return found.unflatten(1, (-1, 5)).flatten(2)


def texture(x0: Tensor, masks: Tensor) -> Tensor:
    """Standard deviation of x0 in the region's interior, and the rms of its differences to the right and down.

    They don't depend on a pattern's phase, which no caption tells: stripes and dots differ from plain, and from one
    another by the differences.
    """
    share = masks / masks.amax((2, 3), keepdim=True).clamp(min=EMPTY)
    inside = share**INTERIOR * (masks.sum((2, 3), keepdim=True) > EMPTY)  # (B,N,h,w)
    centre = pool(x0, inside)
    deviation = pool(x0 * x0, inside) - centre * centre
    right = pool((x0[..., 1:] - x0[..., :-1]).square(), inside[..., 1:] * inside[..., :-1])
    down = pool((x0[..., 1:, :] - x0[..., :-1, :]).square(), inside[..., 1:, :] * inside[..., :-1, :])
    return torch.cat([deviation, right, down], dim=-1).clamp(min=0).sqrt()


@dataclass(frozen=True)
class Target:
    """values: how many it holds per latent channel."""

    values: int
    of: Callable[[Tensor, Tensor], Tensor]


TARGETS = {  # by the key of its weight in config group `loss`, in the order in which a token's head says them
    "region_latent": Target(1, mean),
    "region_moments": Target(5, moments),
    "region_texture": Target(3, texture),
}


def asked(weights: dict[str, float], channels: int) -> dict[str, int]:
    """Name -> size of every target that has a weight."""
    return {name: target.values * channels for name, target in TARGETS.items() if weights[name] > 0}


def _normalised(masks: Tensor) -> Tensor:
    weight = masks.flatten(2)
    return weight / weight.sum(-1, keepdim=True).clamp(min=EMPTY)


def _places(weight: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """weight (B,N,hw), summing to 1 -> u (to the right), v (down), both (B,N,hw)."""
    rows, columns = (torch.arange(n, device=weight.device, dtype=weight.dtype) for n in size)
    grid = torch.stack([columns.repeat(len(rows)), rows.repeat_interleave(len(columns))])  # (2,hw)
    centre = weight @ grid.T  # (B,N,2)
    away = grid - centre[..., None]  # (B,N,2,hw)
    # a cell has a width of its own: a region one cell wide has no place to vary over
    spread = (weight[:, :, None] * away.square()).sum(-1, keepdim=True) + 1 / 12
    u, v = (away / spread.sqrt()).unbind(2)
    return u, v
