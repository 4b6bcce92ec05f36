"""AdamW with 32-bit or 8-bit state, Muon for matrices, and steps within the backward pass; state by parameter name."""

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
WARM_PART = 5  # warm-up takes at most a fifth of the steps
Group = dict[str, Any]
Make = Callable[[list[Group]], torch.optim.Optimizer]


def make_optimizer(
    model: nn.Module, lr: float, optim: Optim, kind: str = "adamw", in_backward: bool = False
) -> torch.optim.Optimizer | Optimizers:
    """Create the optimizer of the trained parameters. Biases, norms and gates have no weight decay.

    If optim.muon is above 0, Muon updates the matrices of linear layers and AdamW everything else.

    Args:
        model: Parameters that require a gradient are trained.
        lr: Peak learning rate.
        optim: Config group `optim`.
        kind: adamw, or adamw8bit, which stores moments in one byte per value for tensors of at least 4,096 values
            (Dettmers et al. 2022, arXiv 2110.02861).
        in_backward: Update each parameter as soon as its gradient has been computed.

    Returns:
        The optimizer.
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
        linear = [p for p in model.parameters() if p in matrices]  # in the model's order
        made[Muon] = [{"params": linear, "lr": lr * optim.muon, "relative": optim.muon, "weight_decay": optim.weight_decay}]
    if in_backward:
        return StepInBackward(made)
    parts = [make(groups) for make, groups in made.items()]
    return Optimizers(parts) if matrices else parts[0]


def _matrices(model: nn.Module) -> set[Tensor]:
    """Trained weights of linear layers, without embeddings, whose rows are unrelated."""
    weights: set[Tensor] = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
    weights |= {m.in_proj_weight for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    return {weight for weight in weights if weight.requires_grad}


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
    """Several optimizers of disjoint parameters, with the interface of one."""

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
    """One optimizer per parameter; the backward pass takes its step and frees the gradient.

    No gradient remains after the backward pass, so gradients cannot be clipped, accumulated or unscaled.
    """

    def __init__(self, made: dict[Make, list[Group]]):
        super().__init__([])
        for make, group in ((make, group) for make, groups in made.items() for group in groups):
            for parameter in group["params"]:
                self.parts.append(part := make([{**group, "params": [parameter]}]))
                parameter.register_post_accumulate_grad_hook(partial(_step_and_free, part))

    def step(self) -> None:
        """Do nothing, since the backward pass has taken the step."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing, since gradients have been freed."""


def _step_and_free(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    optimizer.step()
    parameter.grad = None


def warm_up(steps: int, optim: Optim) -> int:
    """Number of warm-up steps, at most a fifth of all, so that short runs reach their learning rate."""
    return min(optim.warmup, steps // WARM_PART)


def learning_rate(step: int, steps: int, lr: float, optim: Optim) -> float:
    """Linear warm-up multiplied by a cosine decay to final_lr x lr at the last step.

    Args:
        step: The step, counted from 0.
        steps: Total number of steps.
        lr: Peak learning rate.
        optim: Config group `optim`.

    Returns:
        The learning rate of the step.
    """
    warm = min(1.0, (step + 1) / max(1, warm_up(steps, optim)))
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return lr * warm * (optim.final_lr + (1 - optim.final_lr) * cosine)


def optimizer_state(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """`<parameter>/<moment>` -> tensor. An integer, such as the step of bitsandbytes, becomes an int64 scalar."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{key}": value.clone() if key.startswith("qmap") else torch.as_tensor(value)
        for parameter, moments in inner(optimizer).state.items()
        for key, value in moments.items()
    }


def with_moments(optimizer: Any) -> set[nn.Parameter]:
    """The parameters that have moments."""
    return {parameter for parameter, moments in inner(optimizer).state.items() if moments}


def drop_moments(optimizer: Any, keep: set[nn.Parameter]) -> None:
    """Delete the moments of all parameters except `keep`. The next step initialises them again."""
    for parameter, moments in inner(optimizer).state.items():
        if parameter not in keep:
            moments.clear()


def restore_optimizer(model: nn.Module, optimizer: Any, state: dict[str, Tensor]) -> None:
    """Load the state of an optimizer.

    Args:
        model: The model, for the names of its parameters.
        optimizer: Its optimizer, changed in place.
        state: The state, as returned by `optimizer_state`.
    """
    parameters = dict(model.named_parameters())
    moments = inner(optimizer).state
    for path, value in state.items():
        name, _, key = path.rpartition("/")
        moments[parameters[name]][key] = _like_parameter(parameters[name], value)


def _like_parameter(parameter: nn.Parameter, value: Tensor) -> Tensor | int:
    """Convert to the parameter's device and memory format, which fused kernels assume without a check."""
    if value.dtype == torch.int64:
        return int(value)
    if value.shape == parameter.shape:
        value = part_of(value, parameter)
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device, copy=True)


def inner(optimizer: Any) -> Any:
    """The optimizer without the wrapper of accelerate."""
    return getattr(optimizer, "optimizer", optimizer)
