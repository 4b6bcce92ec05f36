"""Inputs of checkpointed blocks that wait for the backward pass in main memory (memory.offload_checkpoints)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import checkpoint as checkpointing

LEAST = 2**20  # bytes; smaller tensors stay on the device
MAIN_MEMORY = ("cpu",)  # devices that tensors are not moved from


@dataclass(frozen=True)
class Offloaded:
    """A tensor in main memory. On the planner's device, where tensors have no data, nothing is held in its place."""

    device: torch.device
    data: Tensor | None
    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


def checkpoint_offloaded(forward: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Checkpoint a call, and hold its inputs in main memory until the backward pass.

    Copies run on the stream that computes, so no synchronisation is needed; main memory is pinned on CUDA.

    Args:
        forward: The forward pass of a block, or the block.
        *args: Its arguments.
        **settings: Its keyword arguments.
    """
    count, names = len(args), [name for name, value in settings.items() if isinstance(value, Tensor)]
    rest = {name: value for name, value in settings.items() if name not in names}

    def positional(*values: Any) -> Any:  # which must not refer to the arguments, or they stayed on the device
        return forward(*values[:count], **dict(zip(names, values[count:], strict=True)), **rest)

    tensors = [settings[name] for name in names]  # checkpoint saves positional arguments alone, and refers to others
    with torch.autograd.graph.saved_tensors_hooks(to_main_memory, to_device):
        return checkpointing.checkpoint(positional, *args, *tensors, use_reentrant=False)


def to_main_memory(x: Tensor) -> Tensor | Offloaded:
    """Copy a tensor to main memory; small ones and those that are there already stay as they are."""
    if x.device.type in MAIN_MEMORY or x.nbytes < LEAST or isinstance(x, torch.nn.Parameter):
        return x
    data = None
    if not x.is_meta:
        data = torch.empty_like(x, device="cpu", pin_memory=x.is_cuda).copy_(x, non_blocking=True)
    return Offloaded(x.device, data, x.size(), x.stride(), x.dtype)


def to_device(x: Tensor | Offloaded) -> Tensor:
    """Copy a tensor back to its device."""
    if isinstance(x, Tensor):
        return x
    if x.data is None:
        return torch.empty_strided(x.size, x.stride, dtype=x.dtype, device=x.device)
    return x.data.to(x.device, non_blocking=True)
