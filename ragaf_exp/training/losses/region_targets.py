"""Losses of the predictions that region tokens make of x_0 in their regions. Regions come from the sketch, not from labels.

Shapes: B batch, C latent channels, N regions, h w latent. Every target maps x_0 (B,C,h,w) and the soft masks
(B,N,h,w), both float32, to (B,N,kC) for some k. The target of an empty region is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragaf_exp.models.regions.targets import TARGETS
from ragaf_exp.training.losses.region_text import over_regions


def train_regions(weights: dict[str, float]) -> bool:
    """Whether the region path has a loss without the denoiser."""
    return any(weights[name] > 0 for name in (*TARGETS, *TEXT_LOSSES))


TEXT_LOSSES = ("contrastive", "spans", "coverage", "entropy")  # see region_text.py


def target_losses(prediction: Tensor, sizes: dict[str, int], masks: Tensor, real: Tensor, x_0: Tensor) -> dict[str, Tensor]:
    """Mean squared error over the real regions, by target.

    Args:
        prediction: Concatenated predictions of all targets, (B,N,sum of sizes).
        sizes: Number of values per region, by target.
        masks: Soft masks of the regions, (B,N,h,w).
        real: Whether a region exists, (B,N) bool.
        x_0: Clean latents, (B,C,h,w).

    Returns:
        The losses by target.
    """
    parts = zip(sizes, prediction.float().split(list(sizes.values()), dim=-1), strict=True)
    return {name: over_regions((part - _exact(name, x_0, masks)).square().mean(-1), real) for name, part in parts}


def _exact(name: str, x_0: Tensor, masks: Tensor) -> Tensor:
    """The target in float32, since a difference of squares loses all precision in bf16."""
    with torch.autocast(x_0.device.type, enabled=False):
        return TARGETS[name].of(x_0.float(), masks)
