"""Pooling of feature maps over the soft masks of regions."""

from __future__ import annotations

from torch import Tensor


def pool(features: Tensor, masks: Tensor) -> Tensor:
    """Average features (B,C,h,w) over each soft mask (B,N,h,w); returns (B,N,C), zero for empty masks."""
    weight = masks.flatten(2).to(features.dtype)  # (B,N,hw)
    share = weight / weight.sum(-1, keepdim=True).clamp(min=1e-3)  # first, as sums overflow float16
    return share @ features.flatten(2).transpose(1, 2)  # (B,N,C)
