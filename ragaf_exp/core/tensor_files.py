"""Safetensors files that are read and written tensor by tensor, for weights that do not fit into memory twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import brief

NAMES = {  # of the format
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
DTYPES = {name: dtype for dtype, name in NAMES.items()}
LARGEST_HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is computed or read only when it is needed."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Number of bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def reshaped(self, *shape: int) -> LazyTensor:
        """Return the tensor in another shape of as many values."""
        return LazyTensor(shape, self.dtype, lambda: self.load().reshape(shape))

    def halved(self) -> LazyTensor:
        """Return the tensor as float16 if it holds floats; it is read as float32 again."""
        if not self.dtype.is_floating_point:
            return self
        return LazyTensor(self.shape, torch.float16, lambda: _half(self.load()))


Tensors = Mapping[str, LazyTensor]


def lazy(tensor: Tensor) -> LazyTensor:
    """Wrap a tensor that is in memory."""
    return LazyTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def read_lazily(path: Path, mapped: bool = False) -> dict[str, LazyTensor]:
    """Read the names, shapes and types of a safetensors file, and each tensor when it is needed.

    Args:
        path: The file.
        mapped: Tensors are pages of the file instead of copies, for those that are used at once: the file must not
            change meanwhile.

    Raises:
        UserError: The file is damaged or no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:  # checks the header against the file's length
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            facts = {name: (tuple(s.get_shape()), DTYPES[s.get_dtype()]) for name, s in slices.items()}
    except KeyError as error:
        raise UserError(f"{path}: holds numbers of type {error}, which are not supported; convert it to float16") from error
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: damaged, or no safetensors file ({brief(error)}); fetch it again") from error
    begins = _begins(path) if mapped else {}
    return {
        name: LazyTensor(shape, dtype, _Pages(path, begins[name], shape, dtype) if mapped else _Reader(path, name))
        for name, (shape, dtype) in facts.items()
    }


@dataclass(frozen=True)
class _Reader:
    """Reads one tensor; the file is mapped into memory only meanwhile."""

    path: Path
    name: str

    def __call__(self) -> Tensor:
        with safe_open(self.path, "pt") as file:
            return file.get_tensor(self.name).clone()


@dataclass(frozen=True)
class _Pages:
    """Maps one tensor's part of a file into memory as long as the tensor lives, without reading the header again."""

    path: Path
    begin: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self) -> Tensor:
        count = prod(self.shape) * self.dtype.itemsize
        if not count:
            return torch.empty(self.shape, dtype=self.dtype)
        pages = np.memmap(self.path, np.uint8, "c", self.begin, (count,))  # "c": writing would change no file
        return torch.from_numpy(pages).view(self.dtype).reshape(self.shape)


def _begins(path: Path) -> dict[str, int]:
    """Read where each tensor begins in a file whose header is valid."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + facts["data_offsets"][0] for name, facts in header.items() if name != "__metadata__"}


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str], half: bool = False) -> None:
    """Write a safetensors file; memory holds one tensor at a time.

    The format is a header length (8 bytes), a JSON header with every tensor's type, shape and offsets, and the data:
    https://huggingface.co/docs/safetensors.

    Args:
        path: The file.
        tensors: Name -> tensor.
        metadata: Texts for the header.
        half: Store floats as float16.

    Raises:
        UserError: With `half`, where a value exceeds float16's range.
    """
    stored = {name: tensor.halved() if half else tensor for name, tensor in tensors.items()}
    order = sorted(stored, key=lambda name: (-stored[name].dtype.itemsize, name))  # keeps every tensor aligned
    header = json.dumps(_header(stored, order, metadata)).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in order:
            file.write(_bytes(name, stored[name]))


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts in a safetensors file's header."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def differing(one: Tensors, other: Tensors) -> Iterator[str]:
    """Yield the names of tensors that are missing on one side or differ in shape, type or any bit."""
    yield from sorted(one.keys() ^ other.keys())
    for name in sorted(one.keys() & other.keys()):
        a, b = one[name], other[name]
        if (a.shape, a.dtype) != (b.shape, b.dtype) or not torch.equal(_bits(a.load()), _bits(b.load())):
            yield name


def _header(tensors: Tensors, order: list[str], metadata: Mapping[str, str]) -> dict[str, object]:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name in order:
        tensor = tensors[name]
        offsets = [begin, begin := begin + tensor.size]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    return header


def _bytes(name: str, tensor: LazyTensor) -> memoryview:
    value = tensor.load().detach().cpu().contiguous()
    assert (tuple(value.shape), value.dtype) == (tensor.shape, tensor.dtype), name
    return memoryview(_bits(value).numpy())


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _half(tensor: Tensor) -> Tensor:
    if tensor.numel() and float(tensor.abs().max()) > LARGEST_HALF:
        raise UserError(f"half=true: a weight is {float(tensor.abs().max()):.3g}, beyond float16's {LARGEST_HALF:.0f}; "
                        "export with half=false")  # fmt: skip
    return tensor.to(torch.float16)
