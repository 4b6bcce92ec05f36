"""Soft masks: the share of each latent cell that each region covers."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_masks(labels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Area-pool labels (B,H,W) int64, -1 = none, else below count N -> (B,N,h,w) float32 in [0,1].

    A pixel on the border of two cells counts for both by its share, so any size works, area is conserved and a region
    one pixel wide never vanishes; cells sum to at most 1 (less where pixels have no region). Runs on the labels'
    device, without a loop.
    """
    height, width = labels.shape[1:]
    if (height, width) == size:
        return (labels[:, None] == torch.arange(count, device=labels.device)[:, None, None]).float()
    if height % size[0] == 0 and width % size[1] == 0:
        return _counted(labels, count, size)
    hot = soft_masks(labels, count, (height, width))
    with torch.autocast(labels.device.type, enabled=False):
        return _shares(height, size[0], labels.device) @ hot @ _shares(width, size[1], labels.device).T


def _shares(length: int, cells: int, device: torch.device) -> Tensor:
    """(cells, length): how much of each cell each pixel covers."""
    cell = torch.arange(cells, device=device)[:, None] * length  # whole numbers: of 1 / (cells length) of the side
    pixel = torch.arange(length, device=device) * cells
    covered = torch.minimum(cell + length, pixel + cells) - torch.maximum(cell, pixel)
    return covered.clamp(min=0) / length


def _counted(labels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """The same where cells hold whole pixels: count pixels per (item, region, cell) in one histogram.

    By scatter_add: on accelerators bincount waits for the device, to learn the largest index.
    """
    (batch, height, width), (h, w) = labels.shape, size
    device = labels.device
    row = torch.arange(height, device=device) // (height // h)
    column = torch.arange(width, device=device) // (width // w)
    cell = row[:, None] * w + column
    index = ((labels + 1) * (h * w) + cell).flatten(1)  # (B,HW)
    hits = torch.zeros(batch, (count + 1) * h * w, device=device)
    hits = hits.scatter_add(1, index, torch.ones((), device=device).expand(index.shape))  # whole numbers: exact
    return hits.view(batch, count + 1, h, w)[:, 1:] / ((height // h) * (width // w))
