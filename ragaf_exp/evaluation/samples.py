"""A run's images of its test items, sampled and cached batch by batch, so that a killed evaluation resumes.

Each file is sealed (ragaf_exp.runs.origin): a file that another user wrote, or that was changed, is sampled again.
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
from ragaf_exp.inference.pipeline import REGION_TEXT, SampledImages
from ragaf_exp.runs.origin import seal
from ragaf_exp.store.records import no_op

log = logging.getLogger(__name__)
FIELDS = (*IMAGES, REGION_TEXT)
HELD = 500_000_000  # bytes of images in memory: beyond that they are read again
SEAL = "seal"  # an array beyond FIELDS: the seal of the others
DIGEST = re.compile(r"[0-9a-f]{16}")  # a folder's name
NAMES = re.compile(r"[0-9a-f]{16}\.safetensors|[a-z]+-[0-9]+\.done")  # of the files in it
FEWEST = 4  # batches in memory at any size: two are read at a time


class SampleCache:
    """Batches of images below folder/<fingerprint>/. Batches of other fingerprints are outdated and are removed.

    Args:
        folder: The cache's folder.
        fingerprint: Of everything that determines the images (see `fingerprint`).
        on_write: Called after images were written.
    """

    def __init__(self, folder: Path, fingerprint: str, on_write: Callable[[], None] = no_op):
        self.folder, self.on_write = folder / fingerprint, on_write
        for name in names_in(make_folder(folder)):
            if name != fingerprint and DIGEST.fullmatch(name):
                remove_named(folder / name, NAMES)
        make_folder(self.folder)

    def batch(self, keys: list[str], sample: Callable[[], SampledImages]) -> SampledImages:
        """The images of these items: read from the cache, else sampled and cached."""
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.safetensors"
        images = _read(path)
        if images is None:
            images = sample()
            write_bytes(path, _sealed(images.arrays, path), own=True)
            self.on_write()
        return images

    def run_once(self, name: str, make: Callable[[], None]) -> None:
        """Call make() unless it was done for this fingerprint before. Its result must depend on nothing else."""
        mark = self.folder / f"{name}.done"
        done = seal(_purpose(mark), b"").encode()
        if _bytes(mark) != done:
            make()
            write_bytes(mark, done, own=True)
            self.on_write()


class CachedSamples:
    """The images of all items, in batches on disk; as many as fit into HELD bytes stay in memory as well.

    Args:
        cache: Reads and writes batches.
        sample: The examples of a batch -> its images.
        examples: All items.
        batches: Indices of each batch's items.
    """

    def __init__(
        self, cache: SampleCache, sample: Callable[[list[Example]], SampledImages], examples: Sequence[Example],
        batches: Sequence[Sequence[int]],
    ):  # fmt: skip
        self.cache, self.sample, self.examples, self.batches = cache, sample, examples, batches
        self.keys: list[list[str]] = []  # keys of each batch's items
        self.rows = {item: (number, row) for number, rows in enumerate(batches) for row, item in enumerate(rows)}
        height, width = examples[0].item.image.shape[:2]
        batch_bytes = max(1, max(map(len, batches)) * 6 * height * width)
        self._read = lru_cache(maxsize=max(FEWEST, HELD // batch_bytes))(self._batch)

    def add(self, keys: list[str]) -> SampledImages:
        """The next batch, of the items with these keys."""
        self.keys.append(keys)
        return self._read(len(self.keys) - 1)

    def has(self, field: str) -> bool:
        """Whether the samples have this array of FIELDS."""
        return field in self._read(0).arrays

    def of(self, field: str) -> Sequence[np.ndarray]:
        """This array of FIELDS, for each item."""

        def of_item(index: int) -> np.ndarray:
            number, row = self.rows[index]
            return self._read(number).arrays[field][row]

        return LazyItems(of_item, sum(map(len, self.keys)))

    def _batch(self, number: int) -> SampledImages:
        indices = self.batches[number]
        return self.cache.batch(self.keys[number], lambda: self.sample([self.examples[i] for i in indices]))


def fingerprint(*facts: object) -> str:
    """16 hex digits of JSON-like facts."""
    return json_digest(facts)


def _read(path: Path) -> SampledImages | None:
    """Read a batch; None if the file is missing, damaged or another user's, so that it is written again."""
    content = _bytes(path)
    if content is None:
        return None
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:  # a dtype may be none of NumPy's
        log.warning("%s: damaged (%s); sampled again", path, error)
        return None
    sealed = arrays.pop(SEAL, None)
    if sealed is None or set(arrays) - set(FIELDS) or sealed.tobytes() != _seal_of(arrays, path):
        log.warning("%s: was made elsewhere, or has changed since; sampled again", path)
        return None
    return SampledImages.of_arrays(arrays)


def _bytes(path: Path) -> bytes | None:
    """The content of a file; None if it is missing, a link, or too large."""
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
    """32 bytes that seal the arrays, the fingerprint and the items that the file's name stands for."""
    digest = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
    return bytes.fromhex(seal(_purpose(path), digest.digest()))


def _purpose(path: Path) -> str:
    return f"samples {path.parent.name}/{path.name}"
