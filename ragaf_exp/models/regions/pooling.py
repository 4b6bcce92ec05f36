"""Pools feature maps over region soft masks."""

from __future__ import annotations

from torch import Tensor


def pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of features (B,C,h,w) over each soft mask (B,N,h,w) -> (B,N,C); an empty mask gives zero."""
    weight = masks.flatten(2).to(features.dtype)  # (B,N,hw)
    share = weight / weight.sum(-1, keepdim=True).clamp(min=1e-3)  # before the product, whose sums float16 can't hold
    return share @ features.flatten(2).transpose(1, 2)  # (B,N,C)
