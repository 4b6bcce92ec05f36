"""What the processes that share a run's steps tell one another: gradients, and the items that others look at."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn

from ragaf_exp.distributed.launch import cpu_group

BUCKET = 32 * 2**20  # bytes of gradients that are sent at once


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def all_reduce_max(value: float) -> float:
    """The largest of the processes' values."""
    if count() == 1:
        return value
    held = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(held, distributed.ReduceOp.MAX, cpu_group())
    return float(held)


def average(parameters: list[nn.Parameter]) -> None:
    """The mean of the processes' gradients, for parameters that any of them has one of.

    Once per step, after all micro-batches. DistributedDataParallel would do it during the backward pass, but asks that
    all that leaves a forward pass enters the loss, which the steps of the region path alone don't keep to.
    """
    if count() == 1:
        return
    device = parameters[0].device
    there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=device)
    distributed.all_reduce(there, distributed.ReduceOp.MAX)
    used = [p for p, has in zip(parameters, there.tolist(), strict=True) if has]
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
    """Tensors in a row, of one dtype and about BUCKET bytes together."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.nbytes for t in bucket) + tensor.nbytes > BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def previous_item(means: Tensor) -> Tensor:
    """(B,N,C) of each item -> that of the item before it in the batch of all processes; the first has the last's.

    Row i of rank r is row i x ranks + r of that batch. N, padded with zeros or cut, stays this process's.
    """
    if count() == 1:
        return means.roll(1, 0)
    regions = int(all_reduce_max(means.shape[1]))
    mine = torch.zeros(len(means), regions, means.shape[2])
    mine[:, : means.shape[1]] = means.detach().float().cpu()
    every = [torch.empty_like(mine) for _ in range(count())]
    distributed.all_gather(every, mine, cpu_group())
    theirs = every[rank() - 1].roll(1, 0) if rank() == 0 else every[rank() - 1]
    return theirs[:, : means.shape[1]].to(means)
