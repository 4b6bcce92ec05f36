"""Region targets: per-region statistics of the image that region tokens are trained to predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ragaf_exp.models.regions.pooling import pool

EMPTY = 1e-3  # a region that covers less than this share of one latent pixel counts as empty
INTERIOR = 8  # exponent of a pixel's share: 1 stays 1, and border pixels, shared with a neighbour, hardly count


def mean(x0: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of x_0 (B,C,h,w) over each region's mask (B,N,h,w), its colour: (B,N,C)."""
    return pool(x0, masks)


def moments(x0: Tensor, masks: Tensor) -> Tensor:
    """Return the means of x_0 times Hermite polynomials of 1st and 2nd order: the region's low frequencies.

    Coordinates u, v are relative to the region's centroid, in units of its standard deviation along each axis, so that
    the polynomials u, v, (u^2-1)/sqrt 2, uv, (v^2-1)/sqrt 2 are orthonormal over a Gaussian blob.

    Args:
        x0: Latents, (B,C,h,w).
        masks: Soft masks of the regions, (B,N,h,w).

    Returns:
        (B,N,5C).
    """
    weight = _normalised(masks)  # (B,N,hw)
    u, v = _coordinates(weight, masks.shape[2:])
    waves = torch.stack([u, v, (u * u - 1) / 2**0.5, u * v, (v * v - 1) / 2**0.5], dim=2)  # (B,N,5,hw)
    means = (weight[:, :, None] * waves).flatten(1, 2) @ x0.flatten(2).transpose(1, 2)  # (B,5N,C)
    return means.unflatten(1, (-1, 5)).flatten(2)


def texture(x0: Tensor, masks: Tensor) -> Tensor:
    """Return the standard deviation of x_0 in the region's interior, and the RMS of its differences right and down.

    They do not depend on a pattern's phase, which captions do not describe. The deviation separates stripes and dots from
    plain regions, and the differences separate stripes from dots.

    Args:
        x0: Latents, (B,C,h,w).
        masks: Soft masks of the regions, (B,N,h,w).

    Returns:
        (B,N,3C).
    """
    share = masks / masks.amax((2, 3), keepdim=True).clamp(min=EMPTY)
    inside = share**INTERIOR * (masks.sum((2, 3), keepdim=True) > EMPTY)  # (B,N,h,w)
    centre = pool(x0, inside)  # (B,N,C)
    deviation = pool(x0 * x0, inside) - centre * centre
    right = pool((x0[..., 1:] - x0[..., :-1]).square(), inside[..., 1:] * inside[..., :-1])
    down = pool((x0[..., 1:, :] - x0[..., :-1, :]).square(), inside[..., 1:, :] * inside[..., :-1, :])
    return torch.cat([deviation, right, down], dim=-1).clamp(min=0).sqrt()


@dataclass(frozen=True)
class Target:
    """A statistic of x_0 in a region."""

    values: int  # number of values per latent channel
    of: Callable[[Tensor, Tensor], Tensor]  # x_0 (B,C,h,w), masks (B,N,h,w) -> (B,N,values C)


TARGETS = {  # key of the weight in config group `loss` -> target, in the order of the prediction head's outputs
    "region_latent": Target(1, mean),
    "region_moments": Target(5, moments),
    "region_texture": Target(3, texture),
}


def target_sizes(weights: dict[str, float], channels: int) -> dict[str, int]:
    """Map the name of every target with a positive weight to its number of values, for latents of `channels`."""
    return {name: target.values * channels for name, target in TARGETS.items() if weights[name] > 0}


def _normalised(masks: Tensor) -> Tensor:
    """Flatten masks (B,N,h,w) to weights (B,N,hw) that sum to 1."""
    weight = masks.flatten(2)
    return weight / weight.sum(-1, keepdim=True).clamp(min=EMPTY)


def _coordinates(weight: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Return coordinates u (to the right) and v (down), both (B,N,hw), for weights (B,N,hw) that sum to 1."""
    rows, columns = (torch.arange(n, device=weight.device, dtype=weight.dtype) for n in size)
    grid = torch.stack([columns.repeat(len(rows)), rows.repeat_interleave(len(columns))])  # (2,hw)
    centre = weight @ grid.T  # (B,N,2)
    away = grid - centre[..., None]  # (B,N,2,hw)
    # 1/12 is the variance within a pixel: without it, a region one pixel wide would have a deviation of zero
    spread = (weight[:, :, None] * away.square()).sum(-1, keepdim=True) + 1 / 12
    u, v = (away / spread.sqrt()).unbind(2)
    return u, v
