"""Sets of pictures from a folder or from arrays, decoded one at a time: a set is never held in memory as a whole."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum
from ragaf_exp.data.images import SUFFIXES, fit_image, read_image
from ragaf_exp.data.listing import listed
from ragaf_exp.data.sources.names import normal

Made = TypeVar("Made")
WORKERS = min(8, os.cpu_count() or 1)  # threads: decoders and resizers release the GIL
AHEAD = 4  # results per thread that may wait for the caller


class WrongPicture(UserError):
    """Not a uint8 RGB picture: a mistake of the caller, raised even if damaged files are skipped."""


class ImageSet(Sequence):
    """Pictures by index, decoded on access: `images[i]` is uint8 RGB (H,W,3).

    A damaged picture, or one that is not uint8 RGB, raises UserError on access.

    Args:
        name: Name of the set in messages.
        keys: Stable and distinct names of the pictures.
        read: Index -> picture.
        digest: Index -> checksum of what `read` returns.
        size: Side of the central square that every picture is fitted to, in px; None leaves pictures as they are.
        others: Names of the folder's other files.
    """

    def __init__(
        self, name: str, keys: Sequence[str], read: Callable[[int], np.ndarray], digest: Callable[[int], str],
        size: int | None = None, others: Sequence[str] = (),
    ) -> None:  # fmt: skip
        if size is not None and size < 1:
            raise UserError(f"size={size}: must be at least 1 pixel")
        self.name, self.keys, self.size, self.others = name, tuple(keys), size, tuple(others)
        self._read, self._digest = read, digest

    @classmethod
    def folder(cls, path: str | Path, size: int | None = None) -> ImageSet:
        """Every picture below a folder; keys are relative names without suffix.

        Hidden files and folders are ignored. Raises UserError for a missing folder, a folder without pictures, and two
        pictures of the same key.
        """
        root = Path(path).expanduser()
        paths, others = pictures_in(root)
        files = list(paths.values())
        return cls(str(root), list(paths), lambda i: read_image(files[i]), lambda i: _of_file(files[i]), size, others)

    @classmethod
    def arrays(cls, images: Sequence[np.ndarray], keys: Sequence[str] | None = None, name: str = "images") -> ImageSet:
        """Pictures of a sequence, which may be lazy.

        Args:
            images: (H,W,3) uint8 each.
            keys: Distinct names; by default the indices, with six digits.
            name: Name of the set in messages.

        Raises:
            UserError: If keys are not one for each image, or not distinct.
        """
        keys = [f"{i:06d}" for i in range(len(images))] if keys is None else keys
        if len(keys) != len(images):
            raise UserError(f"{name}: {len(keys)} keys for {len(images)} images; give one each")
        if len(set(keys)) != len(keys):
            raise UserError(f"{name}: a key occurs twice; give every image its own")
        return cls(name, keys, lambda i: images[i], lambda i: pixel_hash(check_picture(images[i], f"{name}: {keys[i]}")))

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """The pictures with these indices, in this order."""
        chosen = [range(len(self))[i] for i in indices]
        return ImageSet(self.name, [self.keys[i] for i in chosen], lambda i: self._read(chosen[i]),
                        lambda i: self._digest(chosen[i]), self.size, self.others)  # fmt: skip

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int | slice) -> np.ndarray | ImageSet:
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        index = range(len(self))[index]
        picture = check_picture(self._read(index), f"{self.name}: {self.keys[index]}")
        return picture if self.size is None else fit_image(picture, self.size)

    @cached_property
    def checksum(self) -> str:
        """sha256 of the pictures' files or arrays, in order, and the size, without names."""
        total = hashlib.sha256(f"size={self.size}\n".encode())
        for digest in ahead(self._digest, range(len(self))):
            total.update(f"{digest}\n".encode())
        return total.hexdigest()

    def batches(self, count: int) -> Iterator[list[np.ndarray]]:
        """All pictures in order, `count` at a time, decoded ahead by threads."""
        if count < 1:
            raise ValueError(f"batches of {count} images: at least 1")
        batch: list[np.ndarray] = []
        for picture in ahead(self.__getitem__, range(len(self))):
            batch.append(picture)
            if len(batch) == count:
                yield batch
                batch = []
        if batch:
            yield batch


def ahead(work: Callable[[int], Made], indices: Iterable[int]) -> Iterator[Made]:
    """work(i) for every index, in order, computed by threads that run a bounded distance ahead of the caller."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque = deque()
        try:
            for index in indices:
                waiting.append(pool.submit(work, index))
                if len(waiting) >= AHEAD * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def check_picture(picture: np.ndarray, name: str) -> np.ndarray:
    """Return the picture. Raises WrongPicture unless it is uint8 (H,W,3): ranges and layouts are never guessed."""
    if not isinstance(picture, np.ndarray):
        raise WrongPicture(f"{name}: is a {type(picture).__name__}; give a numpy array, uint8 (H,W,3)")
    if picture.dtype != np.uint8:
        raise WrongPicture(f"{name}: is {picture.dtype} {_range(picture)}; convert it to uint8, 0 to 255")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise WrongPicture(f"{name}: has shape {picture.shape}; it must be RGB, (H,W,3)")
    return picture


def pixel_hash(picture: np.ndarray) -> str:
    """32 hex digits of a picture's pixels and shape, independent of the file format."""
    digest = hashlib.blake2b(f"{picture.dtype.str}{picture.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture))
    return digest.hexdigest()


def _range(values: np.ndarray) -> str:
    if not values.size or not np.issubdtype(values.dtype, np.number):
        return "without values in 0 to 255"
    if not np.isfinite(values).all():
        return f"with {int((~np.isfinite(values)).sum())} values NaN or infinite"
    return f"with values from {values.min():g} to {values.max():g}"


def pictures_in(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Every picture below a folder by key, in the order of names, and the names of the other files.

    Hidden files and folders are ignored. Raises UserError for a missing folder, a folder without pictures, and two
    pictures of the same key.
    """
    files, others = _listed(root)
    if not files:
        raise UserError(f"{root}: holds no image ({', '.join(SUFFIXES)}); name a folder of images")
    return dict(zip(_keys(root, files), (root / file for file in files), strict=True)), others


def _listed(root: Path) -> tuple[list[Path], list[str]]:
    """Pictures below a folder and the names of its other files, both relative and sorted."""
    if not root.is_dir():
        raise UserError(f"{root}: is a file, not a folder; name the folder that holds it" if root.exists()
                        else f"{root}: no such folder; check the path")  # fmt: skip
    files, others = listed(root)
    return files, [path.as_posix() for path in others]


def _keys(root: Path, files: list[Path]) -> list[str]:
    first: dict[str, Path] = {}
    for file in files:
        key = normal(file.with_suffix("").as_posix())
        if key in first:
            raise UserError(f"{root}: {first[key]} and {file} differ only in their suffix; keep one of them")
        first[key] = file
    return list(first)


def _of_file(path: Path) -> str:
    try:
        return checksum(path)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); fix that or remove it") from error
