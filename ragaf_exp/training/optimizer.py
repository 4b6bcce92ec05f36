"""AdamW in full or in 8 bits, Muon for matrices; at once or within the backward pass; its state by parameter name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.config.schema import Optim
from ragaf_exp.core.errors import UserError
from ragaf_exp.training.muon import Muon
from ragaf_exp.training.sharding import part_of

KINDS = ("adamw", "adamw8bit")
WARM_PART = 5  # warm-up takes a fifth of the steps at most
Group = dict[str, Any]
Make = Callable[[list[Group]], torch.optim.Optimizer]


def make_optimizer(
    model: nn.Module, lr: float, optim: Optim, kind: str = "adamw", in_backward: bool = False
) -> torch.optim.Optimizer | Optimizers:
    """The optimizer of the parameters that are trained; no weight decay on biases, norms and gates.

    Muon changes the matrices of linear layers where optim.muon asks for it, AdamW all else. kind: adamw, or adamw8bit,
    which holds the moments of tensors of 4,096 values and more in a byte each (Dettmers et al. 2022, arXiv 2110.02861).
    in_backward: each parameter is changed as soon as its gradient is there.
    """
    adamw: Make = {"adamw": _adamw, "adamw8bit": _adamw8bit}[kind]
    matrices = _matrices(model) if optim.muon else set()
    others = [p for p in model.parameters() if p.requires_grad and p not in matrices]
    settings = {"lr": lr, "betas": tuple(optim.betas)}
    groups = [
        {**settings, "params": [p for p in others if p.ndim > 1], "weight_decay": optim.weight_decay},
        {**settings, "params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    made = {adamw: groups}
    if matrices:
        held = [p for p in model.parameters() if p in matrices]  # in the model's order
        made[Muon] = [{"params": held, "lr": lr * optim.muon, "relative": optim.muon, "weight_decay": optim.weight_decay}]
    if in_backward:
        return StepInBackward(made)
    parts = [make(groups) for make, groups in made.items()]
    return Optimizers(parts) if matrices else parts[0]


def _matrices(model: nn.Module) -> set[Tensor]:
    """Trained weights of linear layers, which map features to features; no embeddings, whose rows are unrelated."""
    found: set[Tensor] = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    found |= {m.in_proj_weight for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    return {weight for weight in found if weight.requires_grad}


def _adamw(groups: list[Group]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, fused=True)


def _adamw8bit(groups: list[Group]) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError("memory.optimizer=adamw8bit: bitsandbytes is missing; pip install bitsandbytes, "
                        "or take memory.optimizer=adamw") from error  # fmt: skip
    return AdamW8bit(groups)


class Optimizers:
    """Several optimizers, of parameters of their own, as one."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        self.parts = parts

    @property
    def param_groups(self) -> list[Group]:
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[nn.Parameter, dict[str, Any]]:
        return {p: part.state[p] for part in self.parts for group in part.param_groups for p in group["params"]}

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)


class StepInBackward(Optimizers):
    """An optimizer per parameter, whose step the backward pass takes; the gradient is freed at once.

    No gradient is there when backward is over: nothing can be clipped by its norm, accumulated or unscaled.
    """

    def __init__(self, made: dict[Make, list[Group]]):
        super().__init__([])
        for make, group in ((make, group) for make, groups in made.items() for group in groups):
            for parameter in group["params"]:
                self.parts.append(part := make([{**group, "params": [parameter]}]))
                parameter.register_post_accumulate_grad_hook(partial(_step_and_free, part))

    def step(self) -> None:
        """The backward pass has taken it."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients are gone already."""


def _step_and_free(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    optimizer.step()
    parameter.grad = None


def warm_up(steps: int, optim: Optim) -> int:
    """Steps of warm-up out of all: a longer one than a fifth would end a short run below its learning rate."""
    return min(optim.warmup, steps // WARM_PART)


def learning_rate(step: int, steps: int, lr: float, optim: Optim) -> float:
    """Linear warm-up, then a cosine down to final_lr x lr at the last step."""
    warm = min(1.0, (step + 1) / max(1, warm_up(steps, optim)))
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


def with_moments(optimizer: Any) -> set[nn.Parameter]:
    """The parameters whose moments have been made."""
    return {parameter for parameter, moments in inner(optimizer).state.items() if moments}


def drop_moments(optimizer: Any, keep: set[nn.Parameter]) -> None:
    """Forget all moments but those of some parameters: the next step makes them anew."""
    for parameter, moments in inner(optimizer).state.items():
        if parameter not in keep:
            moments.clear()


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
