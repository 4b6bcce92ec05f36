"""A run's images of its test items, drawn batch by batch and kept, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ragaf_exp.data.split import LazyItems
from ragaf_exp.files import write_bytes
from ragaf_exp.generate import Drawn
from ragaf_exp.jobs import starts
from ragaf_exp.types import Example

log = logging.getLogger(__name__)
FIELDS = ("stage1", "stage2", "region_text")
HELD = 500_000_000  # bytes of images that stay in memory: where there are more they are read again
FEWEST = 4  # batches that stay in memory, whatever their size: two are read at a time


class Draws:
    """Batches under folder/<fingerprint>/. What an earlier fingerprint left there is of other weights, and is removed.

    fingerprint: of all that decides the images (see `fingerprint`).
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder = folder / fingerprint
        for other in folder.glob("*") if folder.is_dir() else ():
            if other != self.folder and other.is_dir():
                shutil.rmtree(other, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def batch(self, keys: list[str], draw: Callable[[], Drawn]) -> Drawn:
        """The images of these items: read where they were drawn before, else drawn and kept."""
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        path = self.folder / f"{name}.safetensors"
        found = _read(path)
        if found is None:
            found = draw()
            arrays = {field: getattr(found, field) for field in FIELDS}
            write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in arrays.items() if v is not None}))
            starts.keeps()
        return found

    def once(self, name: str, make: Callable[[], None]) -> None:
        """make(), whose result hangs on what decides these images alone, unless it was done for them before."""
        mark = self.folder / f"{name}.done"
        if not mark.exists():
            make()
            write_bytes(mark, b"")
            starts.keeps()


class DrawnItems:
    """The images of all items, in batches that lie on disk; as many as fit into HELD bytes stay in memory as well.

    draw: the examples of a batch -> its images. examples: all items', of which batch k starts at k * batch.
    """

    def __init__(self, draws: Draws, draw: Callable[[list[Example]], Drawn], examples: Sequence[Example], batch: int):
        self.draws, self.draw, self.examples, self.batch = draws, draw, examples, batch
        self.keys: list[list[str]] = []  # of each batch
        held = max(FEWEST, HELD // max(1, batch * 6 * examples[0].item.image.shape[0] * examples[0].item.image.shape[1]))
        self._read = lru_cache(maxsize=held)(self._batch)

    def add(self, keys: list[str]) -> Drawn:
        """The next batch, of the items with these keys."""
        self.keys.append(keys)
        return self._read(len(self.keys) - 1)

    def has(self, field: str) -> bool:
        return getattr(self._read(0), field) is not None

    def of(self, field: str) -> Sequence[np.ndarray]:
        """One array of FIELDS for each item."""
        def of_item(index: int) -> np.ndarray:
            number, row = divmod(index, self.batch)
            return getattr(self._read(number), field)[row]

        return LazyItems(of_item, sum(map(len, self.keys)))

    def _batch(self, number: int) -> Drawn:
        start, keys = number * self.batch, self.keys[number]
        return self.draws.batch(keys, lambda: self.draw([self.examples[start + i] for i in range(len(keys))]))


def fingerprint(*facts: object) -> str:
    """16 hex digits of JSON-like facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> Drawn | None:
    """None where there is no such file, or a damaged one, which will be written again."""
    try:
        arrays = load(path.read_bytes())
    except FileNotFoundError:
        return None
    except SafetensorError as error:
        log.warning("%s: damaged (%s); drawn again", path, error)
        return None
    return Drawn(*(arrays.get(field) for field in FIELDS))
