"""Arrays as bytes, in the shortest of a few lossless encodings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SMALL = 1024  # bytes up to which an array is stored as it is: files occupy whole disk blocks


class Encoding(NamedTuple):
    """suits(array): whether to try it; pack(array) -> bytes; unpack(bytes, dtype, size) -> a new flat array."""

    suits: Callable[[np.ndarray], bool]
    pack: Callable[[np.ndarray], bytes]
    unpack: Callable[[memoryview, np.dtype, int], np.ndarray]


def encode(array: np.ndarray) -> tuple[str, bytes]:
    """Return the name of the shortest encoding and the encoded bytes; encodings that lose information are skipped."""
    raw = array.tobytes()
    best = ("raw", raw)
    if array.ndim != 2 or len(raw) <= SMALL:
        return best
    for name, encoding in ENCODINGS.items():
        if not encoding.suits(array):
            continue
        packed = encoding.pack(array)
        if len(packed) < len(best[1]) and encoding.unpack(memoryview(packed), array.dtype, array.size).tobytes() == raw:
            best = (name, packed)
    return best


def decode(name: str, packed: memoryview, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Decode what `encode` returned.

    Args:
        name: The encoding's name.
        packed: The encoded bytes.
        dtype: The array's dtype.
        shape: The array's shape.

    Returns:
        The array, writable.

    Raises:
        KeyError: The encoding is unknown.
        ValueError: The bytes do not fit the dtype and shape.
    """
    return ENCODINGS[name].unpack(packed, dtype, math.prod(shape)).reshape(shape)


def _pack_bits(array: np.ndarray) -> bytes:
    return np.packbits(array != 0).tobytes()


def _unpack_bits(packed: memoryview, dtype: np.dtype, size: int) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=size)
    return bits.view(bool) if dtype.kind == "b" else bits.astype(dtype)


def _levels(array: np.ndarray) -> np.ndarray:
    """Convert grey levels k / 255 to uint8 k."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and the like do not survive, so `encode` skips this
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
    """Run-length encoding along rows: lengths (uint16), then values."""
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
