"""Gradient clipping by norm, fused into the optimizer step where the optimizer supports that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import get_total_norm

from ragaf_exp.training.optimizer import Optimizers, inner


@contextmanager
def clipped(model: nn.Module, optimizer: Any, most: float) -> Iterator[None]:
    """Clip gradients for the optimizer step in this block to a norm of at most `most` (Pascanu et al. 2013).

    A fused AdamW divides gradients as it reads them. For other optimizers they are scaled in advance.

    Args:
        model: The model whose gradients are clipped.
        optimizer: The optimizer of its trained parameters, wrapped by accelerate or not.
        most: Largest norm; 0 disables clipping.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not most or not gradients:
        yield
        return
    divisor = ((get_total_norm(gradients) + 1e-6) / most).clamp(min=1.0)
    bare = inner(optimizer)
    parts = bare.parts if isinstance(bare, Optimizers) else [bare]
    fused = [part for part in parts if isinstance(part, torch.optim.AdamW) and part.defaults.get("fused")]
    others = [p.grad for part in parts if part not in fused for group in part.param_groups for p in group["params"]]
    if left := [gradient for gradient in others if gradient is not None]:
        torch._foreach_div_(left, divisor)
    for part in fused:
        vars(part)["grad_scale"] = divisor
    try:
        yield
    finally:
        for part in fused:
            del vars(part)["grad_scale"]
