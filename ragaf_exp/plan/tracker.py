"""Who holds how much memory: every storage that PyTorch's operations make, from birth to death."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
BLOCK = 512  # bytes; CUDA's allocator hands out multiples of it
READS = (aten._local_scalar_dense.default, aten.is_nonzero.default)  # a value, which a tensor on meta has not
LENGTHS = {  # as long as what they give can be, or as it was asked for at least
    aten.bincount.default: lambda values, weights=None, minlength=0: (minlength,),
    aten.nonzero.default: lambda values: (values.numel(), values.ndim),
}
WORKSPACE = "workspace"


class Tracker(TorchDispatchMode):
    """Counts live bytes by kind while it is entered, of tensors on one kind of device.

    On the meta device, reads of a value give 1, and what is as long as values say is as long as it can be.
    """

    def __init__(self, device: str = "meta"):
        super().__init__()
        self.device = device
        self.kind = WORKSPACE
        self.live: Counter[str] = Counter()
        self.peak, self.at_peak = 0, Counter()
        self._known: dict[int, list] = {}  # id of a storage -> [weak reference, kind, bytes]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is aten._to_copy.default and args[0].device.type == "meta" and _leaves(kwargs):
            return torch.ones_like(args[0], device="cpu", dtype=kwargs.get("dtype"))
        unknown = func in READS or func in LENGTHS
        if unknown and args[0].device.type == "meta":
            if func in READS:
                return True if func is aten.is_nonzero.default or args[0].dtype == torch.bool else 1
            out = torch.empty(LENGTHS[func](*args, **(kwargs or {})), dtype=torch.int64, device="meta")
        else:
            out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return out

    def see(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is known."""
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        if id(storage) in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        gone = weakref.ref(storage, self._forget(id(storage)))
        self._known[id(storage)] = [gone, self.kind, size]
        self._add(self.kind, size)

    def call(self, kind: str, tensors: Iterable[Tensor]) -> None:
        """What these tensors hold is of this kind."""
        for tensor in tensors:
            entry = self._known.get(id(tensor.untyped_storage()))
            if entry is not None and entry[1] != kind:
                self.live[entry[1]] -= entry[2]
                self.live[kind] += entry[2]
                entry[1] = kind

    def away(self, tensors: Iterable[Tensor]) -> None:
        """What these tensors hold lies elsewhere, and counts no more."""
        for tensor in tensors:
            entry = self._known.get(id(tensor.untyped_storage()))
            if entry is not None:
                self.live[entry[1]] -= entry[2]
                entry[2] = 0

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """What is made meanwhile is of this kind."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before

    def during(self, kind: str, call: Callable) -> Callable:
        """The function, whose storages are of this kind."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.of(kind):
                return call(*args, **kwargs)

        return wrapped

    def start(self) -> None:
        """Forget the peak so far."""
        self.peak, self.at_peak = sum(self.live.values()), self.live.copy()

    def _add(self, kind: str, size: int) -> None:
        self.live[kind] += size
        total = sum(self.live.values())
        if total > self.peak:
            self.peak, self.at_peak = total, self.live.copy()

    def _forget(self, key: int) -> Callable[[weakref.ref], None]:
        def forget(_: weakref.ref) -> None:
            _, kind, size = self._known.pop(key)
            self.live[kind] -= size

        return forget


def _leaves(kwargs: dict | None) -> bool:
    """Is this a copy to another device than meta?"""
    device = (kwargs or {}).get("device")
    return device is not None and torch.device(device).type != "meta"
