"""Frozen blocks that stay in main memory and are copied to the device for their turn (memory.swap).

diffusers' group offloading moves a group back after its forward pass and has no hook for the backward pass, which needs the
weights too. Here, gradient checkpointing calls a block's forward pass again right before its backward pass, and that call
fetches the weights. Nothing is copied back, as frozen weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ragaf_exp.config.schema import Memory
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.base import Backbone

LORA = ".lora_"
FROZEN = ("frozen", "lora")  # memory.tune that leaves the blocks' weights as they are


class SwappedBlocks:
    """The frozen weights of a backbone's last blocks. At most two blocks are on the device: one computes, one is fetched.

    Copies of a model share this object, as they share its frozen weights.

    Args:
        blocks: The blocks, in order of execution. Their forward passes and their moves to other devices are replaced.

    Attributes:
        home: Number of a block on the device -> its weights in main memory.
    """

    def __init__(self, blocks: list[nn.Module]):
        self.weights = [_weights(block) for block in blocks]
        self.home: dict[int, list[Tensor]] = {}
        self.arrived: dict[int, torch.cuda.Event] = {}
        held = {id(p) for weights in self.weights for p in weights}
        for i, block in enumerate(blocks):
            vars(block)["forward"] = partial(self.run, i, block.forward)
            vars(block)["_apply"] = partial(_apply_to_others, block, held)

    def __deepcopy__(self, memo: dict[int, Any]) -> SwappedBlocks:
        return self

    def run(self, i: int, forward: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        """Call the forward pass of block i with its weights on the device, and fetch those of the next block.

        Args:
            i: Number of the block.
            forward: Its forward pass.
            *args: Arguments of it.
            **settings: Keyword arguments of it.

        Returns:
            Its output.
        """
        device = next(x.device for x in tree_leaves((args, settings)) if isinstance(x, Tensor))
        backward = torch._C._current_graph_task_id() != -1  # it is called again for the backward pass
        following = i - 1 if backward else i + 1
        self.release(keep=(i, following))
        self._fetch(i, device)
        self._wait(i)
        if 0 <= following < len(self.weights):
            self._fetch(following, device)
        output = forward(*args, **settings)
        if following == len(self.weights) and not torch.is_grad_enabled():
            self.release()
        return output

    def release(self, keep: Collection[int] = ()) -> None:
        """Drop the copies on the device, except those of some blocks."""
        for i in [i for i in self.home if i not in keep]:
            for parameter, home in zip(self.weights[i], self.home.pop(i), strict=True):
                parameter.data = home
            self.arrived.pop(i, None)

    def _fetch(self, i: int, device: torch.device) -> None:
        """Start to copy a block's weights to the device."""
        if i in self.home:
            return
        homes = [_pinned(parameter.data, device) for parameter in self.weights[i]]
        with _aside(device) as stream:  # if memory runs out here, nothing has changed
            copies = [torch.empty_like(home, device=device).copy_(home, non_blocking=True) for home in homes]
            if stream is not None:
                self.arrived[i] = stream.record_event()
        self.home[i] = homes
        for parameter, copy in zip(self.weights[i], copies, strict=True):
            parameter.data = copy

    def _wait(self, i: int) -> None:
        """Let the device's current stream wait for the copies of a block."""
        if i in self.arrived:
            stream = torch.cuda.current_stream()
            stream.wait_event(self.arrived.pop(i))
            for parameter in self.weights[i]:
                parameter.data.record_stream(stream)


def swap_blocks(backbone: Backbone, memory: Memory) -> None:
    """Swap the backbone's last blocks as configured.

    Args:
        backbone: The backbone, changed in place.
        memory: Config group `memory`.

    Raises:
        UserError: The blocks are trained, there are fewer, or another option does not go with it.
    """
    if memory.swap == 0:
        return
    blocks, key = backbone.blocks(), f"memory.swap={memory.swap}"
    if not backbone.pretrained or memory.tune not in FROZEN:
        raise UserError(f"{key}: holds frozen weights of a pretrained backbone; set memory.tune=lora or frozen, or "
                        "memory.swap=0")  # fmt: skip
    if memory.swap > len(blocks):
        raise UserError(f"{key}: this backbone has {len(blocks)} blocks; set at most as many")
    if not memory.checkpointing:
        raise UserError(f"{key}: the backward pass fetches the weights by gradient checkpointing; set "
                        "memory.checkpointing=true")  # fmt: skip
    if memory.compile:
        raise UserError(f"{key}: compiled blocks can't be swapped; set memory.compile=false or memory.swap=0")
    backbone.swapped = SwappedBlocks(blocks[-memory.swap :])
    backbone.register_state_dict_pre_hook(_released)


def swappable_blocks(backbone: Backbone, memory: Memory) -> tuple[int, ...]:
    """Return the bytes of each block that memory.swap could keep in main memory; none if the blocks are trained."""
    if not backbone.pretrained or memory.tune not in FROZEN:
        return ()
    return tuple(sum(p.untyped_storage().nbytes() for p in _weights(block)) for block in backbone.blocks())


def swapped_weights(model: nn.Module) -> list[Tensor]:
    """List the weights that are in main memory except for their turn."""
    swapped = [module.swapped for module in model.modules() if isinstance(module, Backbone) and module.swapped is not None]
    return [p for blocks in swapped for weights in blocks.weights for p in weights]


def _weights(block: nn.Module) -> list[nn.Parameter]:
    """List the frozen weights of a block: all but those of adapters."""
    return [p for name, p in block.named_parameters() if LORA not in f".{name}"]


def _released(backbone: Any, *args: Any) -> None:
    """Let a state dict hold the weights in main memory."""
    backbone.swapped.release()


def _apply_to_others(
    block: nn.Module, held: set[int], function: Callable[[Tensor], Tensor], recurse: bool = True
) -> nn.Module:
    """Apply a function, such as a move to a device, to a block's tensors except the swapped ones.

    Args:
        block: The block.
        held: Identities of the swapped parameters.
        function: Maps tensors.
        recurse: Apply it to the block's modules too.

    Returns:
        The block.
    """
    return nn.Module._apply(block, lambda x: x if id(x) in held else function(x), recurse)


def _pinned(home: Tensor, device: torch.device) -> Tensor:
    """Return a tensor in main memory from which copies to the device overlap with its work."""
    return home.pin_memory() if device.type == "cuda" and not home.is_pinned() else home


@contextmanager
def _aside(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """Use a separate stream on CUDA while this is open."""
    if device.type != "cuda":
        yield None
        return
    stream = _stream(device)
    with torch.cuda.stream(stream):
        yield stream


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
