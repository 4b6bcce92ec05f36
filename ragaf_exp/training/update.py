"""The weight update: backward pass, loss scaling, gradient clipping and optimizer step."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ragaf_exp.compute.device import Compute, kernels
from ragaf_exp.config.schema import Memory, Optim
from ragaf_exp.core.errors import UserError
from ragaf_exp.distributed import collectives
from ragaf_exp.training.clipping import clipped
from ragaf_exp.training.optimizer import (
    drop_moments,
    inner,
    make_optimizer,
    optimizer_state,
    restore_optimizer,
    with_moments,
)
from ragaf_exp.training.sharding import clip, shards

FIRST = 2.0**10  # initial loss scale; it grows automatically, and a larger one would make the first steps overflow
LOST = 2.0**-10  # below this loss scale, training has diverged


class Update:
    """Updates the weights of a model by the gradients of losses. `prepared` is the model as wrapped by accelerate.

    Args:
        model: The model; parameters that require a gradient are trained.
        lr: Peak learning rate.
        optim: Config group `optim`.
        memory: Config group `memory`, for the kind of optimizer and sharding.
        compute: Device and precision.
        accelerator: Prepares model and optimizer.

    Raises:
        UserError: memory.step_in_backward is combined with several processes.
    """

    def __init__(
        self, model: nn.Module, lr: float, optim: Optim, memory: Memory, compute: Compute,
        accelerator: Accelerator,
    ):  # fmt: skip
        if memory.step_in_backward and collectives.count() > 1:
            raise UserError("memory.step_in_backward=true: not with several processes, whose gradients are averaged")
        self.model, self.clip, self.compute, self.accelerator = model, optim.clip, compute, accelerator
        self.shard = shards(memory)
        optimizer = make_optimizer(model, lr, optim, memory.optimizer, memory.step_in_backward)
        self.prepared = accelerator.prepare_model(model, evaluation_mode=True)  # no DDP: see collectives.average
        self.optimizer = accelerator.prepare(optimizer)
        scaled = compute.precision == "fp16"
        self.scaler = torch.amp.GradScaler(compute.device.type, init_scale=FIRST, enabled=scaled)
        self.scale = self.scaler.get_scale()
        self.skipped = 0  # steps whose float16 gradients overflowed

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("relative", 1.0)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a loss."""
        with kernels(self.compute.device, self.compute.precision):  # also used by recomputation in gradient checkpointing
            self.accelerator.backward(self.scaler.scale(loss))

    def apply(self) -> bool:
        """Take the optimizer step and clear the gradients. Returns False if the step was skipped."""
        if not self.shard:  # with FSDP, the backward pass averages gradients
            collectives.average([p for p in self.model.parameters() if p.requires_grad])
        made = with_moments(self.optimizer)
        try:
            return self._apply_scaled() if self.scaler.is_enabled() else self._apply()
        except (RuntimeError, MemoryError):
            drop_moments(self.optimizer, made)  # else a failed first step leaves partial moments behind
            raise

    def _apply(self) -> bool:
        with clipped(self.model, self.optimizer, 0.0 if self.shard else self.clip):
            if self.shard:
                self._clip()
            self.optimizer.step()
        self.discard()
        return True

    def _apply_scaled(self) -> bool:
        bare, before = inner(self.optimizer), self.scale
        try:
            if self.clip:
                self.scaler.unscale_(bare)
                self._clip()
            self.scaler.step(bare)
        except (RuntimeError, MemoryError):
            self._restore_scale(self.numbers())  # the scaler must not count a second attempt as a second step
            raise
        self.scaler.update()
        self.discard()
        self.scale = self.scaler.get_scale()
        self.skipped += self.scale < before
        return self.scale >= before

    def _clip(self) -> None:
        if self.clip and self.shard:
            clip(self.model.parameters(), self.clip)
        elif self.clip:
            self.accelerator.clip_grad_norm_(self.prepared.parameters(), self.clip)

    def discard(self) -> None:
        """Clear all gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def lost(self) -> bool:
        """Whether gradients overflow at any scale."""
        return self.scale < LOST

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state, for a checkpoint."""
        return optimizer_state(self.model, self.optimizer)

    def numbers(self) -> dict[str, float]:
        """The loss scale's state, for a checkpoint; empty without loss scaling."""
        if not self.scaler.is_enabled():
            return {}
        return {"scale": self.scale, "good_steps": self.scaler.state_dict()["_growth_tracker"], "skipped": self.skipped}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Restore the state returned by `tensors` and `numbers`."""
        restore_optimizer(self.model, self.optimizer, tensors)
        if self.scaler.is_enabled() and numbers:
            self._restore_scale(numbers)

    def _restore_scale(self, numbers: dict[str, float]) -> None:
        self.scaler = torch.amp.GradScaler(self.compute.device.type)
        state = {"scale": numbers["scale"], "_growth_tracker": int(numbers["good_steps"])}
        self.scaler.load_state_dict(self.scaler.state_dict() | state)
        self.scale, self.skipped = numbers["scale"], int(numbers["skipped"])
