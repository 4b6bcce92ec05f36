"""Applies config group `memory` to a model before training. These options save memory and keep results the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ragaf_exp.config.schema import Memory
from ragaf_exp.models.blocks import recomputed_blocks, repeated_blocks


def lay_out(model: nn.Module, memory: Memory) -> nn.Module:
    """Convert the weights to the configured memory format."""
    return model.to(memory_format=torch.channels_last) if memory.channels_last else model


def save_memory(model: nn.Module, memory: Memory) -> nn.Module:
    """Enable gradient checkpointing and compilation as configured. Parameter names do not change."""
    if memory.checkpointing:
        _checkpoint(model)
    if memory.compile:
        for block in repeated_blocks(model):
            block.compile()
    return model


def _checkpoint(model: nn.Module) -> None:
    """Discard the inner activations of each block; backward recomputes them from the block's input."""
    networks: Iterable[Any] = model.modules()
    for module in networks:
        if getattr(module, "_supports_gradient_checkpointing", False):
            module.enable_gradient_checkpointing()
    for block in recomputed_blocks(model):
        vars(block)["forward"] = partial(_recomputed, block.forward)


def _recomputed(forward, *args, **settings):
    if not torch.is_grad_enabled():
        return forward(*args, **settings)
    return checkpoint(forward, *args, use_reentrant=False, **settings)
