"""A run's images of its test items, drawn batch by batch and kept, so that a killed evaluation goes on where it was.

Each file is sealed (origin.py): what this user didn't write, or what changed since, is sampled again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.safe_files import BINARY, make_folder, names_in, read_bounded, remove_named
from ragaf_exp.core.types import Example
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.runs.origin import seal
from ragaf_exp.store.records import no_op

log = logging.getLogger(__name__)
FIELDS = (*IMAGES, "region_text")
HELD = 500_000_000  # bytes of images that stay in memory: where there are more they are read again
SEAL = "seal"  # an array beyond FIELDS: the seal of the others
DIGEST = re.compile(r"[0-9a-f]{16}")  # a folder's name
NAMES = re.compile(r"[0-9a-f]{16}\.safetensors|[a-z]+-[0-9]+\.done")  # of the files in it
FEWEST = 4  # batches that stay in memory, whatever their size: two are read at a time


class SampleCache:
    """Batches under folder/<fingerprint>/. What an earlier fingerprint left there is of other weights, and is removed.

    fingerprint: of all that decides the images (see `fingerprint`). on_write: called when some have reached the disk.
    """

    def __init__(self, folder: Path, fingerprint: str, on_write: Callable[[], None] = no_op):
        self.folder, self.on_write = folder / fingerprint, on_write
        for name in names_in(make_folder(folder)):
            if name != fingerprint and DIGEST.fullmatch(name):
                remove_named(folder / name, NAMES)
        make_folder(self.folder)

    def batch(self, keys: list[str], draw: Callable[[], SampledImages]) -> SampledImages:
        """The images of these items: read where they were drawn before, else drawn and kept."""
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.safetensors"
        found = _read(path)
        if found is None:
            found = draw()
            arrays = {field: getattr(found, field) for field in FIELDS}
            write_bytes(path, _sealed({k: v for k, v in arrays.items() if v is not None}, path), own=True)
            self.on_write()
        return found

    def run_once(self, name: str, make: Callable[[], None]) -> None:
        """make(), whose result hangs on what decides these images alone, unless it was done for them before."""
        mark = self.folder / f"{name}.done"
        done = seal(_purpose(mark), b"").encode()
        if _bytes(mark) != done:
            make()
            write_bytes(mark, done, own=True)
            self.on_write()


class CachedSamples:
    """The images of all items, in batches that lie on disk; as many as fit into HELD bytes stay in memory as well.

    draw: the examples of a batch -> its images. examples: all items'. batches: the indices of each batch's items.
    """

    def __init__(
        self, draws: SampleCache, draw: Callable[[list[Example]], SampledImages], examples: Sequence[Example],
        batches: Sequence[Sequence[int]],
    ):  # fmt: skip
        self.draws, self.draw, self.examples, self.batches = draws, draw, examples, batches
        self.keys: list[list[str]] = []  # of each batch
        self.rows = {item: (number, row) for number, rows in enumerate(batches) for row, item in enumerate(rows)}
        batch = max(map(len, batches))
        held = max(FEWEST, HELD // max(1, batch * 6 * examples[0].item.image.shape[0] * examples[0].item.image.shape[1]))
        self._read = lru_cache(maxsize=held)(self._batch)

    def add(self, keys: list[str]) -> SampledImages:
        """The next batch, of the items with these keys."""
        self.keys.append(keys)
        return self._read(len(self.keys) - 1)

    def has(self, field: str) -> bool:
        return getattr(self._read(0), field) is not None

    def of(self, field: str) -> Sequence[np.ndarray]:
        """One array of FIELDS for each item."""

        def of_item(index: int) -> np.ndarray:
            number, row = self.rows[index]
            return getattr(self._read(number), field)[row]

        return LazyItems(of_item, sum(map(len, self.keys)))

    def _batch(self, number: int) -> SampledImages:
        indices = self.batches[number]
        return self.draws.batch(self.keys[number], lambda: self.draw([self.examples[i] for i in indices]))


def fingerprint(*facts: object) -> str:
    """16 hex digits of JSON-like facts."""
    return json_digest(facts)


def _read(path: Path) -> SampledImages | None:
    """None where there is no such file, or one that is damaged or somebody else's, which will be written again."""
    content = _bytes(path)
    if content is None:
        return None
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:  # a dtype may be none of NumPy's
        log.warning("%s: damaged (%s); sampled again", path, error)
        return None
    found = arrays.pop(SEAL, None)
    if found is None or set(arrays) - set(FIELDS) or found.tobytes() != _seal_of(arrays, path):
        log.warning("%s: was made elsewhere, or has changed since; sampled again", path)
        return None
    return SampledImages(*(arrays.get(field) for field in FIELDS))


def _bytes(path: Path) -> bytes | None:
    """The content of a file; None where it is missing, a link, or too large to be one of these."""
    try:
        return read_bounded(path, BINARY)
    except FileNotFoundError:
        return None
    except UserError as error:
        log.warning("%s; written again", error)
        return None


def _sealed(arrays: dict[str, np.ndarray], path: Path) -> bytes:
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return save(arrays | {SEAL: np.frombuffer(_seal_of(arrays, path), np.uint8)})


def _seal_of(arrays: dict[str, np.ndarray], path: Path) -> bytes:
    """32 bytes: of the arrays, and of the fingerprint and the items that the file's name stands for."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    return bytes.fromhex(seal(_purpose(path), digest.digest()))


def _purpose(path: Path) -> str:
    return f"samples {path.parent.name}/{path.name}"
