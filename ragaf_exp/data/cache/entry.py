"""Serialisation of a cache entry: an example's sketch, regions and graph as bytes, bit-exactly.

Layout: MAGIC, length of the header (uint32), header, arrays, checksum. The header is JSON and holds every field of
the dataclasses in core/types.py by its name: an integer, or [dtype, shape, encoding, bytes] of an array. The checksum
(XXH3, 64 bits) covers the entry's name and all bytes before it. Nothing is pickled.
"""

from __future__ import annotations

import json
import struct
import typing
from dataclasses import is_dataclass
from operator import attrgetter, index

import numpy as np
import xxhash

from ragaf_exp.core.types import Example, Item
from ragaf_exp.store.encodings import decode, encode

MAGIC = b"RGF1"  # the last digit is the version of the layout
HEAD, TAIL = struct.Struct("<4sI"), struct.Struct("<Q")
LATER = ("conditions", "absent", "edits")  # set after an example is read
HINTS = typing.get_type_hints(Example)
PARTS = {
    part: {name: f"{part}.{name}" for name in typing.get_type_hints(kind)}
    for part, kind in HINTS.items() if is_dataclass(kind) and part != "item"
}  # fmt: skip
KINDS = {part: kind for part, kind in HINTS.items() if not is_dataclass(kind) and part not in LATER} | {
    f"{part}.{name}": kind for part in PARTS for name, kind in typing.get_type_hints(HINTS[part]).items()
}  # every field's full name -> its type, an array or an integer


class Unreadable(Exception):
    """Not a valid entry of this name and these fields: truncated, damaged, foreign or of another version."""


def pack(name: str, example: Example) -> bytes:
    """Serialise an example without its item. Raises TypeError for a field whose type differs from that in KINDS."""
    header: dict[str, int | tuple] = {}
    arrays: list[bytes] = []
    for field, kind in KINDS.items():
        value = attrgetter(field)(example)
        if kind is np.ndarray:
            encoding, packed = encode(value)
            header[field] = (value.dtype.str, value.shape, encoding, len(packed))
            arrays.append(packed)
        else:
            header[field] = index(value)
    text = json.dumps(header, separators=(",", ":")).encode()
    content = b"".join([HEAD.pack(MAGIC, len(text)), text, *arrays])
    return content + TAIL.pack(_checksum(name, content))


def unpack(name: str, content: bytes, item: Item) -> Example:
    """Deserialise an example.

    Args:
        name: The entry's name.
        content: The entry's bytes.
        item: The item that it belongs to.

    Returns:
        The example, with writable arrays.

    Raises:
        Unreadable: The entry is invalid.
    """
    body = memoryview(content)[: -TAIL.size]
    if len(content) < HEAD.size + TAIL.size or TAIL.unpack_from(content, len(body))[0] != _checksum(name, body):
        raise Unreadable(name)
    try:
        return _example(item, _fields(body))
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Unreadable(name) from error


def _fields(body: memoryview) -> dict[str, np.ndarray | int]:
    magic, length = HEAD.unpack_from(body)
    at = HEAD.size + length
    header = json.loads(bytes(body[HEAD.size : at])) if magic == MAGIC else {}
    if header.keys() != KINDS.keys():
        raise ValueError("other fields than this version's")
    values = {}
    for field, value in header.items():
        if isinstance(value, int) != (KINDS[field] is int):
            raise ValueError(f"{field}: of another type than in this version")
        values[field] = value
        if KINDS[field] is np.ndarray:
            dtype, shape, encoding, size = value
            values[field] = decode(encoding, body[at : at + size], np.dtype(dtype), shape)
            at += size
    return values


def _example(item: Item, values: dict[str, np.ndarray | int]) -> Example:
    parts = {field: value for field, value in values.items() if field in HINTS}
    for part, names in PARTS.items():
        parts[part] = HINTS[part](**{name: values[field] for name, field in names.items()})
    return Example(item, **parts)


def _checksum(name: str, content: bytes | memoryview) -> int:
    digest = xxhash.xxh3_64(name.encode())  # detects an entry under another's name
    digest.update(content)
    return digest.intdigest()
