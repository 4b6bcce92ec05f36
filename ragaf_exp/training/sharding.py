"""Fully sharded training (memory.shard): each process holds its shard of weights, gradients, moments and averages.

This is FSDP2 (Zhao et al. 2023, arXiv 2304.11277) with torch's `fully_shard`, which accelerate calls too. accelerate 1.15
supports it on accelerators only, and tests on CPUs must run the same code as GPUs. Checkpoints and everything else that
leaves training hold unsharded tensors; only this file and its callers in the trainer handle shards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ragaf_exp.config.schema import Memory
from ragaf_exp.distributed import collectives
from ragaf_exp.models.blocks import repeated_blocks
from ragaf_exp.training.ema import Ema


class Sharded(nn.Module):
    """The root of a sharded model. Calling it gathers the weights of repeated blocks one by one, and the rest at once.

    Args:
        model: A model on any device, with the same weights in all processes. Its parameters become shards.
        device: The device of the shards.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        super().__init__()
        self.model = model
        mesh = init_device_mesh(device.type, (collectives.count(),))
        for block in repeated_blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(self, mesh=mesh)

    def forward(self, objective: nn.Module, *inputs: Any) -> dict[str, Tensor]:
        """Return the losses of the objective, since FSDP2 handles tensors in dictionaries, but not those in dataclasses."""
        return objective(self.model, *inputs)


class ShardedEma(Ema):
    """A sharded average. `model`, in main memory, is the unsharded average as of the last `gather`.

    Args:
        whole: A copy of the model made before it was sharded.
        trained: The sharded model.
        decay: Final decay, as in Ema.
        place: device, cpu or off, as in Ema.
        device: The device of training.
    """

    def __init__(self, whole: nn.Module, trained: nn.Module, decay: float, place: str, device: torch.device):
        self.decay, self.place, self.trained, self.device = decay, place, trained, device
        self.model = whole.requires_grad_(False).eval()
        both = zip(whole.parameters(), trained.parameters(), strict=True)
        pairs = [(target, cast(DTensor, value)) for target, value in both if value.requires_grad]
        self.parts = [(target, self._start(value), value) for target, value in pairs]

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs of this process's shards of averaged and trained weights."""
        return [(mean.to_local(), value.to_local()) for _, mean, value in self.parts]

    def _start(self, value: DTensor) -> DTensor:
        """The initial shard of the average; the trained shard itself if averaging is off."""
        if self.place == "off":
            return value
        mean = value.detach().clone()
        return cast(DTensor, mean.cpu() if self.place == "cpu" else mean)

    @torch.no_grad()
    def gather(self) -> None:
        """Update `model` from the shards. All processes of a run call it together."""
        for target, mean, _ in self.parts:
            target.copy_(_joined(mean.to_local().to(self.device), target))

    @torch.no_grad()
    def scatter(self) -> None:
        """Update the shards from `model`."""
        for target, mean, value in self.parts:
            if self.place != "off":
                mean.to_local().copy_(cast(DTensor, part_of(target, value)).to_local())

    @contextmanager
    def serving(self) -> Iterator[nn.Module]:
        """Provide the unsharded average on the device. Call `gather` first."""
        try:
            yield self.model.to(self.device)
        finally:
            self.model.to("cpu")

    def finish(self, device: torch.device) -> nn.Module:
        self.gather()
        return super().finish(device)


def shards(memory: Memory) -> bool:
    """Whether this process trains a shard. Memory plans use a single process, which has no shards."""
    return memory.shard and collectives.count() > 1


def shard(model: nn.Module, decay: float, place: str, device: torch.device) -> tuple[Sharded, ShardedEma]:
    """Shard a model over all processes.

    Args:
        model: The model, with the same weights in all processes.
        decay: Final decay of the average, as in Ema.
        place: device, cpu or off, as in Ema.
        device: The device of training.

    Returns:
        The root, whose call computes the losses, and the average.
    """
    whole = copy.deepcopy(model)
    return Sharded(model, device), ShardedEma(whole, model, decay, place, device)


def whole(tensors: dict[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Unsharded tensors by name, in main memory if they were sharded. All processes call it; {} if not `keep`."""
    gathered = {}
    for name, value in tensors.items():
        value = _joined(value.to_local(), value).cpu() if isinstance(value, DTensor) else value
        if keep:
            gathered[name] = value
    return gathered


def _joined(part: Tensor, like: Tensor) -> Tensor:
    """Gather a tensor that is sharded along its first dimension. like: a tensor with the unsharded shape.

    DTensor.full_tensor() is not used, since it once crashed with SIGSEGV in a run of two processes; the cause is unknown.
    """
    rows = -(-like.shape[0] // collectives.count())
    mine = part.new_zeros(rows, *like.shape[1:])  # the last shards may have fewer rows
    mine[: len(part)] = part.detach()
    every = part.new_empty(rows * collectives.count(), *like.shape[1:])
    distributed.all_gather_into_tensor(every, mine)
    return every[: like.shape[0]]


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Clip the gradients of all shards together to a norm of at most `most` (Pascanu et al. 2013)."""
    gradients = [cast(DTensor, p.grad).to_local() for p in parameters if p.grad is not None]
    squares = torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()
    distributed.all_reduce(squares)
    torch._foreach_mul_(gradients, (most / (squares.sqrt() + 1e-6)).clamp(max=1.0))


def part_of(value: Tensor, held: Tensor) -> Tensor:
    """This process's shard of a tensor, if the tensor `held` of the same name is sharded; else the tensor."""
    if not isinstance(held, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


def parts_of(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Shard an unsharded state as load_state_dict of the model expects it."""
    held = model.state_dict()
    return {name: part_of(value, held[name]) if name in held else value for name, value in state.items()}


def finite(model: nn.Module) -> bool:
    """Whether all parameters of all processes are finite. Every process gets the same answer."""
    local = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
    return not collectives.all_reduce_max(float(not all(p.isfinite().all() for p in local)))
