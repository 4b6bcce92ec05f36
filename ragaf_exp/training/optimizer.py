"""AdamW, its learning rate as a function of the step, and its state by parameter name."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ragaf_exp.config.schema import Optim


def make_optimizer(model: nn.Module, lr: float, optim: Optim) -> torch.optim.Optimizer:
    """AdamW over the parameters that are trained; no weight decay on biases, norms and gates."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=tuple(optim.betas), fused=True)


def learning_rate(step: int, steps: int, lr: float, optim: Optim) -> float:
    """Linear warm-up, then a cosine down to final_lr x lr at the last step."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return lr * warm * (optim.final_lr + (1 - optim.final_lr) * cosine)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter>/<moment>` -> tensor."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": value
        for parameter, moments in _inner(optimizer).state.items()
        for key, value in moments.items()
    }


def restore_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    inner = _inner(optimizer)
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        inner.state[parameter][key] = value.to(parameter.device, copy=True)


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """accelerate wraps the optimizer."""
    return getattr(optimizer, "optimizer", optimizer)
