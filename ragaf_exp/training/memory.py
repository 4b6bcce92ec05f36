"""Applies config group `memory` to a model before training. These options save memory and keep results the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils import checkpoint as checkpointing

from ragaf_exp.config.schema import Memory
from ragaf_exp.models.blocks import recomputed_blocks, repeated_blocks
from ragaf_exp.training.checkpoint_offload import checkpoint_offloaded


def lay_out(model: nn.Module, memory: Memory) -> nn.Module:
    """Convert the weights to the configured memory format."""
    return model.to(memory_format=torch.channels_last) if memory.channels_last else model


def save_memory(model: nn.Module, memory: Memory) -> nn.Module:
    """Enable gradient checkpointing and compilation as configured. Parameter names do not change."""
    if memory.checkpointing:
        plain = partial(checkpointing.checkpoint, use_reentrant=False)
        _checkpoint(model, checkpoint_offloaded if memory.offload_checkpoints else plain)
    if memory.compile:
        for block in repeated_blocks(model):
            block.compile()
    return model


def _checkpoint(model: nn.Module, checkpointed: Callable[..., Any]) -> None:
    """Discard the inner activations of each block; backward recomputes them from the block's input.

    Args:
        model: The model, whose blocks are changed.
        checkpointed: Calls a forward pass with its arguments, and discards its activations.
    """
    networks: Iterable[Any] = model.modules()
    for module in networks:
        if getattr(module, "_supports_gradient_checkpointing", False):
            module.enable_gradient_checkpointing(checkpointed)
    for block in recomputed_blocks(model):
        vars(block)["forward"] = partial(_recomputed, checkpointed, block.forward)


def _recomputed(checkpointed: Callable[..., Any], forward: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **settings)
    return checkpointed(forward, *args, **settings)
