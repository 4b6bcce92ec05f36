"""Soft masks: the share of each latent cell that each region covers."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_masks(labels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Pool labels to soft masks by area, on the labels' device and without a loop.

    A pixel on the border of two cells counts for both by its share, so that any size works, area is conserved and a
    region one pixel wide never vanishes.

    Args:
        labels: (B,H,W) int64, -1 = no region, else below `count`.
        count: Number of regions N.
        size: Height h and width w of the masks, in cells.

    Returns:
        (B,N,h,w) float32 in [0,1]; regions sum to at most 1 per cell, less where pixels have no region.
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
    """Compute the share of each cell that each pixel covers, (cells, length)."""
    cell = torch.arange(cells, device=device)[:, None] * length  # integers, in units of 1 / (cells length) of the side
    pixel = torch.arange(length, device=device) * cells
    covered = torch.minimum(cell + length, pixel + cells) - torch.maximum(cell, pixel)
    return covered.clamp(min=0) / length


def _counted(labels: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    """Compute soft masks for cells of whole pixels, by a histogram over (item, region, cell).

    Uses scatter_add, as on accelerators bincount synchronises with the device to get the largest index.
    """
    (batch, height, width), (h, w) = labels.shape, size
    device = labels.device
    row = torch.arange(height, device=device) // (height // h)
    column = torch.arange(width, device=device) // (width // w)
    cell = row[:, None] * w + column
    index = ((labels + 1) * (h * w) + cell).flatten(1)  # (B,HW)
    hits = torch.zeros(batch, (count + 1) * h * w, device=device)
    hits = hits.scatter_add(1, index, torch.ones((), device=device).expand(index.shape))  # integers, so exact
    return hits.view(batch, count + 1, h, w)[:, 1:] / ((height // h) * (width // w))
