"""What a region token is asked to say of x0 in its region. No annotation is needed: regions come from the sketch.

Shapes: B batch, C latent channels, N regions, h w latent. Every target maps x0 (B,C,h,w) and the soft masks
(B,N,h,w), both float32, to (B,N,kC) for some k; a region that covers nothing gets zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragaf_exp.models.regions.targets import TARGETS
from ragaf_exp.training.losses.region_text import over_regions


def train_regions(weights: dict[str, float]) -> bool:
    """Whether steps of the region path alone would have a loss."""
    return any(weights[name] > 0 for name in (*TARGETS, *TEXT_LOSSES))


TEXT_LOSSES = ("contrastive", "spans", "coverage", "entropy")  # see region_text.py


def target_losses(guess: Tensor, sizes: dict[str, int], masks: Tensor, real: Tensor, x0: Tensor) -> dict[str, Tensor]:
    """Mean squared error over the real regions, by target. guess (B,N,sum of sizes), real (B,N) bool."""
    parts = zip(sizes, guess.float().split(list(sizes.values()), dim=-1), strict=True)
    return {name: over_regions((said - _exact(name, x0, masks)).square().mean(-1), real) for name, said in parts}


def _exact(name: str, x0: Tensor, masks: Tensor) -> Tensor:
    """The target in float32: a difference of squares has no digits left in bf16."""
    with torch.autocast(x0.device.type, enabled=False):
        return TARGETS[name].of(x0.float(), masks)
