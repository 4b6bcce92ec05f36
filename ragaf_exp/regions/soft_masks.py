"""Soft masks: the share of each latent cell that each region covers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, one_hot


def soft_masks(labels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Area-pool labels (B,H,W) int64, -1 = none, else below count N -> (B,N,h,w) float32 in [0,1].

    The one-hot map under adaptive_avg_pool2d, so any size works and a region one pixel wide never vanishes;
    cells sum to at most 1 (less where pixels have no region). Runs on the labels' device, without a loop.
    """
    height, width = labels.shape[1:]
    if height % size[0] == 0 and width % size[1] == 0:
        return _counted(labels, count, size)
    hot = one_hot(labels + 1, count + 1)[..., 1:].permute(0, 3, 1, 2)
    return adaptive_avg_pool2d(hot.float(), size)


def _counted(labels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """The same where cells hold whole pixels: count pixels per (item, region, cell) in one histogram."""
    (batch, height, width), (h, w) = labels.shape, size
    device = labels.device
    row = torch.arange(height, device=device) // (height // h)
    column = torch.arange(width, device=device) // (width // w)
    cell = row[:, None] * w + column
    item = torch.arange(batch, device=device)[:, None, None] * (count + 1)
    index = (item + labels + 1) * (h * w) + cell
    hits = torch.bincount(index.flatten(), minlength=batch * (count + 1) * h * w)
    return hits.view(batch, count + 1, h, w)[:, 1:].float() / ((height // h) * (width // w))
