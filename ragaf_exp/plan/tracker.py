"""Tracks live memory by kind: every storage that PyTorch's operations allocate, until it is freed."""

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

from ragaf_exp.plan import meta_kernels

aten = torch.ops.aten
BLOCK = 512  # bytes; CUDA's allocator hands out multiples of it
READS = (aten._local_scalar_dense.default, aten.is_nonzero.default)  # reads of a value, which a meta tensor lacks
LENGTHS = {  # the largest shape of data-dependent outputs, or the requested minimum
    aten.bincount.default: lambda values, weights=None, minlength=0: (minlength,),
    aten.nonzero.default: lambda values: (values.numel(), values.ndim),
}
SPECIAL = {id(func) for func in (aten._to_copy.default, *READS)}
UNKNOWN = {id(func) for func in LENGTHS}
WORKSPACE = "workspace"


class Tracker(TorchDispatchMode):
    """Counts live bytes by kind in its block, for tensors on one type of device.

    On the meta device, reads of a value give 1, and outputs with data-dependent shapes have their largest shape.
    """

    def __init__(self, device: str = "meta"):
        super().__init__()
        self.device = device
        self.kind = WORKSPACE
        self.live: Counter[str] = Counter()
        self.total = 0  # of `live`
        self.peak, self.at_peak = 0, Counter()
        self._records, self._starts = True, 0  # whether peaks are recorded, and how often they were reset
        # id of a storage, in order of creation -> [weak reference, kind, bytes, (resets, peak and bytes by kind) before it]
        self._known: dict[int, list] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if id(func) in SPECIAL and args[0].is_meta:  # ids, as the hash of an operation is computed in Python
            if func is aten._to_copy.default and _copies_off_meta(kwargs):
                return torch.ones_like(args[0], device="cpu", dtype=kwargs.get("dtype"))
            if func in READS:
                return True if func is aten.is_nonzero.default or args[0].dtype == torch.bool else 1
        if id(func) in UNKNOWN and args[0].is_meta:
            out = torch.empty(LENGTHS[func](*args, **(kwargs or {})), dtype=torch.int64, device="meta")
        else:
            out = meta_kernels.call(func, args, kwargs or {})
        for leaf in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.register(leaf)
        return out

    def register(self, tensor: Tensor) -> None:
        """Count a tensor's storage, unless it is already counted."""
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        if id(storage) in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        reference = weakref.ref(storage, self._forget(id(storage)))
        self._known[id(storage)] = [reference, self.kind, size, (self._starts, self.peak, self.at_peak)]
        self._add(self.kind, size)

    def label(self, kind: str, tensors: Iterable[Tensor]) -> None:
        """Count these tensors' storages under this kind."""
        for tensor in tensors:
            entry = self._known.get(id(tensor.untyped_storage()))
            if entry is not None and entry[1] != kind:
                self.live[entry[1]] -= entry[2]
                self.live[kind] += entry[2]
                entry[1] = kind

    def exclude(self, tensors: Iterable[Tensor]) -> None:
        """Stop counting these tensors' storages, as they are on another device."""
        for tensor in tensors:
            entry = self._known.get(id(tensor.untyped_storage()))
            if entry is not None:
                self.live[entry[1]] -= entry[2]
                self.total -= entry[2]
                entry[2] = 0

    @contextmanager
    def labelling(self, kind: str) -> Iterator[None]:
        """Count allocations in the block under this kind."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before

    def labelled(self, kind: str, call: Callable) -> Callable:
        """Wrap a function so that its allocations are counted under this kind."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.labelling(kind):
                return call(*args, **kwargs)

        return wrapped

    def start(self) -> None:
        """Reset the peak to the live memory."""
        self.peak, self.at_peak = self.total, self.live.copy()
        self._starts += 1

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Leave the peak as it is in the block, whatever is live there."""
        self._records = False
        try:
            yield
        finally:
            self._records = True

    def repeat(self) -> None:
        """Raise the peak to that of a repetition of all operations since `start`.

        What they left behind is live from the start of the repetition, and the peak may lie before any of it is allocated.
        """
        later: Counter[str] = Counter()
        for _, kind, size, (start, peak, at_peak) in reversed([*self._known.values()]):
            if start < self._starts:
                return
            later[kind] += size
            if peak + later.total() >= self.peak:
                self.peak, self.at_peak = peak + later.total(), at_peak + later

    def _add(self, kind: str, size: int) -> None:
        self.live[kind] += size
        self.total += size
        if self.total > self.peak and self._records:
            self.peak, self.at_peak = self.total, self.live.copy()

    def _forget(self, key: int) -> Callable[[weakref.ref], None]:
        def forget(_: weakref.ref) -> None:
            _, kind, size, _ = self._known.pop(key)
            self.live[kind] -= size
            self.total -= size

        return forget


def _copies_off_meta(kwargs: dict | None) -> bool:
    """Whether a copy goes to a device other than meta."""
    device = (kwargs or {}).get("device")
    return device is not None and torch.device(device).type != "meta"
