"""Fixed-size records by key in memory-mapped shards: the storage of cached encoder outputs.

Every writer appends to its private shards, so that several processes and hosts can fill one folder at once; two that
compute the same record only waste a little time and space. A kill leaves at most one truncated record, which readers
ignore. Each record holds a checksum of its key and content.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json

HEAD = 64  # bytes before a shard's first record
MAGIC = b"RGFEAT1\n"  # the digit is the version of the layout
SHARD = 2**30  # bytes after which a writer begins a new shard
KEY = 16  # bytes


def no_op() -> None:
    """Do nothing: the default callback."""


class Records:
    """Named arrays by key.

    Args:
        folder: Created on the first write.
        fields: Name -> (dtype, shape) of each array, the same for all records of a folder.
        description: Stored in the folder as JSON, for human readers.
        on_write: Called when records have reached the disk.
    """

    def __init__(
        self, folder: Path, fields: dict[str, tuple[str, tuple[int, ...]]], description: dict[str, Any],
        on_write: Callable[[], None] = no_op,
    ):  # fmt: skip
        self.folder, self.fields, self.description, self.on_write = folder, fields, description, on_write
        parts = [("key", "u1", (KEY,)), *((name, *kind) for name, kind in fields.items()), ("sum", "<u8")]
        self.dtype = np.dtype(parts)
        self.index: dict[bytes, tuple[int, int]] = {}  # key -> shard, row
        self.shards: list[np.memmap] = []
        self.indexed: dict[str, int] = {}  # shard's file name -> number of its records in `index`
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        """State without open files, for a loader's worker process, which maps the shards itself."""
        return {**self.__dict__, "index": {}, "shards": [], "indexed": {}, "_file": None, "on_write": no_op}

    def __contains__(self, key: bytes) -> bool:
        return key in self.index

    def __len__(self) -> int:
        return len(self.index)

    def refresh(self) -> Records:
        """Map records that any process has written since the last call."""
        for path in sorted(self.folder.glob("*.shard")):
            with open(path, "rb") as file:
                whole = file.read(len(MAGIC)) == MAGIC
            count = (path.stat().st_size - HEAD) // self.dtype.itemsize if whole else 0
            if count <= self.indexed.get(path.name, 0):
                continue
            shard = np.memmap(path, self.dtype, "r", HEAD, (count,))
            self.shards.append(shard)
            first = self.indexed.get(path.name, 0)
            for row, key in enumerate(np.asarray(shard["key"][first:]), first):
                self.index.setdefault(key.tobytes(), (len(self.shards) - 1, row))
            self.indexed[path.name] = count
        return self

    def read(self, key: bytes) -> dict[str, np.ndarray]:
        """Read a record's arrays. Raises KeyError if there is none, UserError if it is damaged."""
        if not self.shards:
            self.refresh()
        shard, row = self.index[key]
        record = self.shards[shard][row]
        if int(record["sum"]) != self._checksum(record):
            raise UserError(f"{self.shards[shard].filename}: damaged; remove it, and what it held is computed again")
        return {name: record[name] for name in self.fields}

    def write(self, key: bytes, arrays: dict[str, np.ndarray]) -> None:
        """Append a record. Raises UserError if an array's shape is not that of the folder's records."""
        record = np.zeros((), self.dtype)
        record["key"] = np.frombuffer(key, np.uint8)
        for name, (_, shape) in self.fields.items():
            if tuple(arrays[name].shape) != tuple(shape):
                raise UserError(
                    f"features: {name} is of shape {tuple(arrays[name].shape)}, not {tuple(shape)}; "
                    "outputs of varying size can't be cached; take memory.features=none"
                )
            record[name] = arrays[name]
        record["sum"] = self._checksum(record)
        self._shard().write(record.tobytes())

    def flush(self) -> None:
        """Sync written records to disk and make them readable."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self.on_write()
        self.refresh()

    def forget(self) -> None:
        """Remove the markers of complete data sets, so that the next pass checks every item."""
        for done in self.folder.glob("*.whole.json"):
            done.unlink(missing_ok=True)

    def _shard(self) -> BinaryIO:
        if self._file is None or self._file.tell() > SHARD:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._file is None and not (self.folder / "about.json").exists():
                write_json(self.folder / "about.json", self.description)
            self._file = open(self.folder / f"{secrets.token_hex(8)}.shard", "xb")  # noqa: SIM115 - closed with self
            self._file.write(MAGIC.ljust(HEAD, b"\0"))
        return self._file

    def _checksum(self, record: np.ndarray) -> int:
        digest = xxhash.xxh3_64(record["key"].tobytes())
        for name in self.fields:
            digest.update(np.ascontiguousarray(record[name]))
        return digest.intdigest()


def key_of(*parts: bytes | str | np.ndarray) -> bytes:
    """Hash contents to a key; for arrays, the values, shape and dtype count."""
    digest = xxhash.xxh3_128()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(json.dumps([part.dtype.str, part.shape]).encode())
            digest.update(np.ascontiguousarray(part))
        else:
            digest.update(part.encode() if isinstance(part, str) else part)
    return digest.digest()
