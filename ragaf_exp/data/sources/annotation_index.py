"""Compact copies of what is needed of large COCO files, so that a data set starts in seconds.

Annotations are parsed when their image is read, by their place in the file. What is made from a file above LARGE is
stored in the cache folder, since parsing train2017's annotations takes longer than a start should.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.garbage import collection_paused
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.data.lengths import shortened
from ragaf_exp.data.sources.json_array import array_items, array_values, as_utf8
from ragaf_exp.store.entries import locate_cache

log = logging.getLogger(__name__)
LARGE = 16_000_000  # bytes
VERSION = 1  # of the stored arrays
Arrays = dict[str, np.ndarray]


class AnnotationIndex:
    """The annotations of a COCO file by image, its categories and the sizes of its images.

    Args:
        path: The JSON file.

    Raises:
        UserError: It is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrays = stored_arrays(path, _parse_annotations)
        self._table = arrays["table"]  # (K, 4) int64: image id, category id, offset, length; sorted by image
        self._ids = np.ascontiguousarray(self._table[:, 0])
        self._sizes = arrays["sizes"]  # (M, 3) int64: image id, height, width; sorted by image
        self._images = np.ascontiguousarray(self._sizes[:, 0])
        self.names: dict[int, str] = {int(k): v for k, v in json.loads(arrays["names"].tobytes()).items()}

    def categories(self, image: int) -> np.ndarray:
        """Return the category ids of an image's annotations, -1 for several in one annotation."""
        return self._table[self._rows(image), 1]

    def of(self, image: int, wanted: set[int] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the annotations of an image, of the `wanted` category ids only if given."""
        rows = self._table[self._rows(image)].tolist()
        if not rows:
            return
        file = os.open(self.path, os.O_RDONLY)
        try:
            for _, category, offset, length in rows:
                if wanted is None or category in wanted:
                    yield json.loads(os.pread(file, length, offset))
        finally:
            os.close(file)

    def size(self, image: int) -> tuple[int, int]:
        """Return height and width of an image, in pixels. Raises UserError if the file does not list it."""
        row = int(np.searchsorted(self._images, image))
        if row == len(self._images) or self._images[row] != image:
            raise UserError(f"{self.path}: lists no image {image}; fetch it again, or set data.objects=false")
        return int(self._sizes[row, 1]), int(self._sizes[row, 2])

    def _rows(self, image: int) -> slice:
        return slice(*np.searchsorted(self._ids, (image, image + 1)).tolist())


def _parse_annotations(path: Path) -> Arrays:
    rows = array("q")
    try:
        for offset, length, value in array_items(path, "annotations"):
            rows.extend((value["image_id"], value.get("category_id", -1), offset, length))
    except (KeyError, TypeError, AttributeError):
        raise UserError(_without(path, "annotations", ("image_id",))) from None
    sizes = array("q", chain.from_iterable(_fields(path, "images", "id", "height", "width")))
    names = {number: as_utf8(name) for number, name in _fields(path, "categories", "id", "name")}
    return {"table": _sorted(rows, 4), "sizes": _sorted(sizes, 3), "names": _bytes(json.dumps(names))}


def read_captions(path: Path) -> list[tuple[int, str, list[str]]]:
    """Read id, file name and captions of each image of a COCO captions file, in its order. Raises UserError."""
    arrays = stored_arrays(path, _parse_captions)
    names = arrays["names"].tobytes().decode().split("\n")
    texts = arrays["texts"].tobytes().decode().split("\n")
    ends = np.cumsum(arrays["counts"]).tolist()
    starts = [0, *ends]
    return [(number, name, texts[start:end])
            for number, name, start, end in zip(arrays["ids"].tolist(), names, starts, ends, strict=False)]  # fmt: skip


def _parse_captions(path: Path) -> Arrays:
    names = {number: as_utf8(name) for number, name in _fields(path, "images", "id", "file_name")}
    texts: dict[int, list[str]] = defaultdict(list)
    for number, text in _fields(path, "annotations", "image_id", "caption"):
        texts[number].append(" ".join(as_utf8(text).split()))
    for number, each in texts.items():
        texts[number] = shortened(each, path)
    return {
        "ids": np.array(list(names), np.int64),
        "names": _bytes("\n".join(names.values())),
        "counts": np.array([len(texts[number]) for number in names], np.int64),
        "texts": _bytes("\n".join(text for number in names for text in texts[number])),
    }


def stored_arrays(path: Path, parse: Callable[[Path], Arrays]) -> Arrays:
    """Return the arrays that `parse` makes of a file, from the cache folder where it is large and unchanged."""
    try:
        stat = path.stat()
    except OSError:
        raise UserError(f"{path}: no such file; fetch COCO's annotations") from None
    if stat.st_size < LARGE:
        return parse(path)
    name = json_digest([VERSION, parse.__name__, str(path.absolute()), stat.st_size, stat.st_mtime_ns])
    stored = locate_cache("") / "annotations" / f"{name}.npz"
    try:
        with np.load(stored, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        log.info("%s: indexing, once", path)
        with collection_paused():
            arrays = parse(path)
        _store(stored, arrays)
        return arrays


def _store(path: Path, arrays: Arrays) -> None:
    """Store arrays by renaming; without a writable cache, the file is parsed again next time."""
    temporary = path.with_name(f"{path.stem}.{np.random.default_rng().integers(2**62):x}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **arrays)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def _fields(path: Path, name: str, *keys: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values of some keys, two or more, of each element of an array. Raises UserError for other elements."""
    values = itemgetter(*keys)
    try:
        for elements in array_values(path, name):
            yield from map(values, elements)
    except (KeyError, TypeError):
        raise UserError(_without(path, name, keys)) from None


def _without(path: Path, name: str, keys: Sequence[str]) -> str:
    return f"{path}: {name} have no {' and '.join(sorted(keys))}; is it COCO's file of that name?"


def _sorted(rows: array[int], width: int) -> np.ndarray:
    table = np.frombuffer(rows, np.int64).reshape(-1, width)
    return table[np.argsort(table[:, 0], kind="stable")]


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
