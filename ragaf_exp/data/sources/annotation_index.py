"""An index of a large COCO file: the bytes of each image's annotations, which are parsed when the image is read.

The index of a file above LARGE is stored in the cache folder, since making it parses the file once (10 s for train2017).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.core.hashing import json_digest
from ragaf_exp.data.sources.json_array import array_items, element_at
from ragaf_exp.store.entries import locate_cache

LARGE = 16_000_000  # bytes
VERSION = 1  # of the stored index


class AnnotationIndex:
    """The annotations of a COCO file by image.

    Args:
        path: The JSON file.

    Raises:
        UserError: It is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = self._load()  # (K, 4) int64: image id, category id, offset, length; sorted by image
        self._ids = np.ascontiguousarray(self._table[:, 0])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_content"}  # maps can't be pickled

    def categories(self, image: int) -> np.ndarray:
        """Return the category ids of an image's annotations, -1 for several in one annotation."""
        return self._table[self._rows(image), 1]

    def of(self, image: int, wanted: set[int] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the annotations of an image, of the `wanted` category ids only if given."""
        for _, category, offset, length in self._table[self._rows(image)].tolist():
            if wanted is None or category in wanted:
                yield element_at(self._content, offset, length)

    @cached_property
    def _content(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _rows(self, image: int) -> slice:
        return slice(*np.searchsorted(self._ids, (image, image + 1)).tolist())

    def _load(self) -> np.ndarray:
        try:
            stat = self.path.stat()
        except OSError:
            return self._parse()  # raises
        if stat.st_size < LARGE:
            return self._parse()
        name = json_digest([VERSION, str(self.path.absolute()), stat.st_size, stat.st_mtime_ns])
        stored = locate_cache("") / "annotations" / f"{name}.npy"
        try:
            return np.load(stored, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            table = self._parse()
            _store(stored, table)
            return table

    def _parse(self) -> np.ndarray:
        rows = [
            (value["image_id"], value.get("category_id", -1), offset, length)
            for offset, length, value in array_items(self.path, "annotations")
        ]
        table = np.array(rows, np.int64).reshape(-1, 4)
        return table[np.argsort(table[:, 0], kind="stable")]


def _store(path: Path, table: np.ndarray) -> None:
    """Store an index by renaming; without a writable cache, the file is parsed again next time."""
    temporary = path.with_name(f"{path.stem}.{np.random.default_rng().integers(2**62):x}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, table, allow_pickle=False)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
