"""Collective operations of the processes that share a run's steps: averaged gradients and exchanged items."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn

from ragaf_exp.distributed.launch import cpu_group

BUCKET = 32 * 2**20  # bytes of gradients per all-reduce


def count() -> int:
    """Number of processes that share the run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Rank of this process among them."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def all_reduce_max(value: float) -> float:
    """Return the largest of the processes' values."""
    if count() == 1:
        return value
    largest = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(largest, distributed.ReduceOp.MAX, cpu_group())
    return float(largest)


def average(parameters: list[nn.Parameter]) -> None:
    """Average gradients over the processes, for parameters that have one in any of them.

    Called once per step, after all micro-batches. DistributedDataParallel would do it during the backward pass, but
    requires that every output of a forward pass enters the loss, which steps that train only the region path violate.
    """
    if count() == 1:
        return
    device = parameters[0].device
    has_gradient = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=device)
    distributed.all_reduce(has_gradient, distributed.ReduceOp.MAX)
    used = [p for p, has in zip(parameters, has_gradient.tolist(), strict=True) if has]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in used]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        distributed.all_reduce(flat)
        parts = (flat / count()).split([gradient.numel() for gradient in bucket])
        for gradient, mean_of_all in zip(bucket, parts, strict=True):
            gradient.copy_(mean_of_all.view(gradient.shape))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Group consecutive tensors of one dtype into buckets of about BUCKET bytes."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.nbytes for t in bucket) + tensor.nbytes > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def previous_item(means: Tensor) -> Tensor:
    """Shift items by one position in the global batch, cyclically.

    Args:
        means: (B,N,C) of this process's items; row i of rank r is row i x ranks + r of the global batch.

    Returns:
        (B,N,C) of the preceding items, padded with zeros or cut to this process's N.
    """
    if count() == 1:
        return means.roll(1, 0)
    regions = int(all_reduce_max(means.shape[1]))
    mine = torch.zeros(len(means), regions, means.shape[2])
    mine[:, : means.shape[1]] = means.detach().float().cpu()
    gathered = [torch.empty_like(mine) for _ in range(count())]
    distributed.all_gather(gathered, mine, cpu_group())
    previous = gathered[rank() - 1].roll(1, 0) if rank() == 0 else gathered[rank() - 1]
    return previous[:, : means.shape[1]].to(means)
