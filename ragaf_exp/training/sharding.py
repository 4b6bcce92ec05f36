"""Fully sharded training (memory.shard): each process holds its part of weights, gradients, moments and averages.

FSDP2 (Zhao et al. 2023, arXiv 2304.11277), by torch's own `fully_shard`, which is what accelerate calls: accelerate 1.15
sets it up on accelerators alone, and then tests on processors would not run what GPUs run. Whatever leaves training,
checkpoints above all, is whole: nothing but this file and its callers in the trainer knows of parts.
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
    """The root of a sharded model: who calls it has all weights while it computes, the blocks' one after the other.

    model: on any device, the same in all processes. Its parameters become parts on `device`; its
    repeated blocks come and go by themselves, the rest of the model together.
    """

    def __init__(self, model: nn.Module, device: torch.device):
        super().__init__()
        self.model = model
        mesh = init_device_mesh(device.type, (collectives.count(),))
        for block in repeated_blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(self, mesh=mesh)

    def forward(self, objective: nn.Module, *inputs: Any) -> dict[str, Tensor]:
        """The objective's losses. FSDP2 finds tensors in dictionaries, not in the dataclasses that a model returns."""
        return objective(self.model, *inputs)


class ShardedEma(Ema):
    """Each process averages its part. `model`, in main memory, is the whole average as of the last `gather`.

    whole: a copy of the model from before it was sharded. trained: the same, sharded since.
    """

    def __init__(self, whole: nn.Module, trained: nn.Module, decay: float, place: str, device: torch.device):
        self.decay, self.place, self.trained, self.device = decay, place, trained, device
        self.model = whole.requires_grad_(False).eval()
        both = zip(whole.parameters(), trained.parameters(), strict=True)
        pairs = [(target, cast(DTensor, value)) for target, value in both if value.requires_grad]
        self.parts = [(target, self._start(value), value) for target, value in pairs]

    @property
    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """This process's parts, of the average and of the trained weights."""
        return [(mean.to_local(), value.to_local()) for _, mean, value in self.parts]

    def _start(self, value: DTensor) -> DTensor:
        """The average's part: of its own, or the trained weights' where there is no average."""
        if self.place == "off":
            return value
        mean = value.detach().clone()
        return cast(DTensor, mean.cpu() if self.place == "cpu" else mean)

    @torch.no_grad()
    def gather(self) -> None:
        for target, mean, _ in self.parts:
            target.copy_(_joined(mean.to_local().to(self.device), target))

    @torch.no_grad()
    def scatter(self) -> None:
        for target, mean, value in self.parts:
            if self.place != "off":
                mean.to_local().copy_(cast(DTensor, part_of(target, value)).to_local())

    @contextmanager
    def serving(self) -> Iterator[nn.Module]:
        """The whole average on the device, for as long as this is open. `gather` comes before."""
        try:
            yield self.model.to(self.device)
        finally:
            self.model.to("cpu")

    def finish(self, device: torch.device) -> nn.Module:
        self.gather()
        return super().finish(device)


def shards(memory: Memory) -> bool:
    """Whether this process trains a part: one alone is refused where a run starts, and plans are of one."""
    return memory.shard and collectives.count() > 1


def shard(model: nn.Module, decay: float, place: str, device: torch.device) -> tuple[Sharded, ShardedEma]:
    """Split a model among the processes: its root, which is to be called, and its average. decay, place: of Ema."""
    whole = copy.deepcopy(model)
    return Sharded(model, device), ShardedEma(whole, model, decay, place, device)


def whole(tensors: dict[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Tensors by name, in main memory where they were parts; all processes call it, for {} where not `keep`."""
    found = {}
    for name, value in tensors.items():
        value = _joined(value.to_local(), value).cpu() if isinstance(value, DTensor) else value
        if keep:
            found[name] = value
    return found


def _joined(part: Tensor, like: Tensor) -> Tensor:
    """The whole of a tensor that is cut along its first dimension. like: of the whole's shape.

    Not DTensor.full_tensor(): in one of the first runs of two processes one ended in it by SIGSEGV, its cause not found.
    """
    rows = -(-like.shape[0] // collectives.count())
    mine = part.new_zeros(rows, *like.shape[1:])  # all parts but the last ones are of so many rows
    mine[: len(part)] = part.detach()
    every = part.new_empty(rows * collectives.count(), *like.shape[1:])
    distributed.all_gather_into_tensor(every, mine)
    return every[: like.shape[0]]


def clip(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Scale all gradients so that their norm, over all processes' parts, is `most` or less (Pascanu et al. 2013)."""
    gradients = [cast(DTensor, p.grad).to_local() for p in parameters if p.grad is not None]
    squares = torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()
    distributed.all_reduce(squares)
    torch._foreach_mul_(gradients, (most / (squares.sqrt() + 1e-6)).clamp(max=1.0))


def part_of(value: Tensor, held: Tensor) -> Tensor:
    """This process's part of a whole tensor, where `held` is a part of one of the same name; else the tensor."""
    if not isinstance(held, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)


def parts_of(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A model's state, whole, as load_state_dict of the model as it is now takes it."""
    held = model.state_dict()
    return {name: part_of(value, held[name]) if name in held else value for name, value in state.items()}


def finite(model: nn.Module) -> bool:
    """Whether all parameters are finite, in all processes: the same answer in each."""
    local = (p.to_local() if isinstance(p, DTensor) else p for p in model.parameters())
    return not collectives.all_reduce_max(float(not all(p.isfinite().all() for p in local)))
