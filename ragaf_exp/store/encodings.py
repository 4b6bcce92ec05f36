"""Arrays as bytes: the shortest of a few lossless encodings that gives the very same bytes back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SMALL = 1024  # bytes, up to which an array stays as it is: files take whole blocks of the disk


class Encoding(NamedTuple):
    """pack(array) -> bytes; unpack(bytes, dtype, size) -> a fresh flat array; suits(array): whether to try it."""

    suits: Callable[[np.ndarray], bool]
    pack: Callable[[np.ndarray], bytes]
    unpack: Callable[[memoryview, np.dtype, int], np.ndarray]


def encode(array: np.ndarray) -> tuple[str, bytes]:
    """Name of an encoding, and the array's bytes in it. An encoding that does not give the array back is not taken."""
    plain = array.tobytes()
    best = ("raw", plain)
    if array.ndim != 2 or len(plain) <= SMALL:
        return best
    for name, way in ENCODINGS.items():
        if not way.suits(array):
            continue
        packed = way.pack(array)
        if len(packed) < len(best[1]) and way.unpack(memoryview(packed), array.dtype, array.size).tobytes() == plain:
            best = (name, packed)
    return best


def decode(name: str, packed: memoryview, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """What `encode` was given, as a writable array. ValueError or KeyError where the bytes do not fit."""
    return ENCODINGS[name].unpack(packed, dtype, math.prod(shape)).reshape(shape)


def _pack_bits(array: np.ndarray) -> bytes:
    return np.packbits(array != 0).tobytes()


def _unpack_bits(packed: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=size)
    return bits.view(bool) if dtype.kind == "b" else bits.astype(dtype)


def _levels(array: np.ndarray) -> np.ndarray:
    """uint8 k of grey levels k / 255."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and the like do not come back, so are not taken
        return np.rint(array * np.float32(255)).astype(np.uint8)


def _greys(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.float32) / np.float32(255)


def _pack_levels(array: np.ndarray) -> bytes:
    return _levels(array).tobytes()


def _unpack_levels(packed: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
    return _greys(np.frombuffer(packed, np.uint8))


def _pack_level_runs(array: np.ndarray) -> bytes:
    return _pack_runs(_levels(array))


def _unpack_level_runs(packed: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
    return _greys(_unpack_runs(packed, np.dtype(np.uint8), size))


def _pack_runs(array: np.ndarray) -> bytes:
    """Lengths (uint16), then values, of the runs of equal values along each row."""
    starts = np.ones(array.shape, bool)
    np.not_equal(array[:, 1:], array[:, :-1], out=starts[:, 1:])
    lengths = np.diff(np.flatnonzero(starts), append=array.size)
    return lengths.astype("<u2").tobytes() + array[starts].tobytes()


def _unpack_runs(packed: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
    count = len(packed) // (2 + dtype.itemsize)
    values = np.frombuffer(packed, dtype, offset=2 * count)
    return np.repeat(values, np.frombuffer(packed, "<u2", count))


def _unpack_raw(packed: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
    return np.frombuffer(packed, dtype).copy()


def _floats(array: np.ndarray) -> bool:
    return array.dtype == np.float32


ENCODINGS = {
    "raw": Encoding(lambda a: False, np.ndarray.tobytes, _unpack_raw),
    "bits": Encoding(lambda a: a.dtype.kind in "bfiu", _pack_bits, _unpack_bits),  # a line drawing, a mask
    "levels": Encoding(_floats, _pack_levels, _unpack_levels),  # a small drawing in greys
    "level_runs": Encoding(_floats, _pack_level_runs, _unpack_level_runs),  # a large one
    "runs": Encoding(lambda a: a.dtype.kind in "iu", _pack_runs, _unpack_runs),  # a label map
}
