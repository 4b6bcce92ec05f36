"""AdamW in full or in 8 bits, at once or within the backward pass; its learning rate; its state by parameter name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.config.schema import Optim
from ragaf_exp.errors import UserError
from ragaf_exp.training.shard import part_of

KINDS = ("adamw", "adamw8bit")


def make_optimizer(
    model: nn.Module, lr: float, optim: Optim, kind: str = "adamw", in_backward: bool = False
) -> torch.optim.Optimizer | StepInBackward:
    """AdamW over the parameters that are trained; no weight decay on biases, norms and gates.

    kind: adamw, or adamw8bit, which holds the moments of tensors of 4,096 values and more in a byte each (Dettmers et
    al. 2022, arXiv 2110.02861). in_backward: each parameter is changed as soon as its gradient is there.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    make = {"adamw": _adamw, "adamw8bit": _adamw8bit}[kind]
    settings = {"lr": lr, "betas": tuple(optim.betas)}
    return StepInBackward(make, groups, settings) if in_backward else make(groups, **settings)


def _adamw(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, **settings, fused=True)


def _adamw8bit(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError("memory.optimizer=adamw8bit: bitsandbytes is missing; pip install bitsandbytes, "
                        "or take memory.optimizer=adamw") from error  # fmt: skip
    return AdamW8bit(groups, **settings)


class StepInBackward:
    """An optimizer per parameter, whose step the backward pass takes; the gradient is freed at once.

    No gradient is there when backward is over: nothing can be clipped by its norm, accumulated or unscaled.
    """

    def __init__(
        self, make: Callable[..., torch.optim.Optimizer], groups: list[dict[str, Any]], settings: dict[str, Any]
    ):
        self.parts: dict[nn.Parameter, torch.optim.Optimizer] = {}
        for group in groups:
            for parameter in group["params"]:
                self.parts[parameter] = make([{**group, "params": [parameter]}], **settings)
                parameter.register_post_accumulate_grad_hook(self._step)

    def _step(self, parameter: nn.Parameter) -> None:
        self.parts[parameter].step()
        parameter.grad = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in part.param_groups]

    @property
    def state(self) -> dict[nn.Parameter, dict[str, Any]]:
        return {parameter: part.state[parameter] for parameter, part in self.parts.items()}

    def step(self) -> None:
        """The backward pass has taken it."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients are gone already."""


def learning_rate(step: int, steps: int, lr: float, optim: Optim) -> float:
    """Linear warm-up, then a cosine down to final_lr x lr at the last step."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return lr * warm * (optim.final_lr + (1 - optim.final_lr) * cosine)


def optimizer_state(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """`<parameter>/<moment>` -> tensor; a whole number, as bitsandbytes' step, as an int64 of no dimensions."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": value.clone() if key.startswith("qmap") else torch.as_tensor(value)
        for parameter, moments in inner(optimizer).state.items()
        for key, value in moments.items()
    }


def restore_optimizer(model: nn.Module, optimizer: Any, state: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    held = inner(optimizer).state
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        held[parameters[name]][key] = _as_held(parameters[name], value)


def _as_held(parameter: nn.Parameter, value: Tensor) -> Tensor | int:
    """In the parameter's own memory order, of which fused kernels make no check."""
    if value.dtype == torch.int64:
        return int(value)
    if value.shape == parameter.shape:
        value = part_of(value, parameter)
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device, copy=True)


def inner(optimizer: Any) -> Any:
    """accelerate wraps the optimizer."""
    return getattr(optimizer, "optimizer", optimizer)
