"""Features of image sets, computed once for each set and network and cached on disk.

A set's folder is named after the checksums of its images and of the network's weights, and the resizing. Features are
written in pieces, each atomically, so that a killed process loses one piece and any number of processes may work at
once. At the end the pieces are joined to one file that is memory-mapped. The name of every file contains the checksum of
its content: a damaged file is computed again. The least recently used sets are evicted (ragaf_exp.store.eviction).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from eval.features.base import Network
from eval.images import ImageSet, ahead
from eval.metrics.distances import moments
from ragaf_exp.core.files import checksum
from ragaf_exp.store.eviction import STALE, mark_used

__all__ = ["features_of", "moments"]

log = logging.getLogger(__name__)
Result = TypeVar("Found")
SCHEMA = 1  # of the cache: increase it when the same images and weights should give other features
PIECE = 256  # images
DIGITS = 16  # of a checksum, in a file's name


class FeatureFolder:
    """The cache folder of one image set's features; None disables the cache.

    If the folder can't be used, the cache is disabled with a warning.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    def attempt(self, call: Callable[[Path], Result]) -> Result | None:
        """The result of call(folder); None if the cache is disabled or has just failed."""
        if self.folder is None:
            return None
        try:
            return call(self.folder)
        except OSError as error:
            _warn(self.folder.parent, error)
            self.folder = None
            return None


def features_of(images: ImageSet, network: Network, cache_folder: str | Path | None) -> np.ndarray:
    """Features of pictures: read from the cache if they are there and intact, else computed with a progress bar.

    Args:
        images: The set, of N pictures.
        network: The feature network, of D dimensions.
        cache_folder: Folder of the cache; None, or a folder that can't be read or written, disables it.

    Returns:
        float32 (N,D), memory-mapped if they are cached.

    Raises:
        UserError: For a picture that can't be read.
    """
    store = FeatureFolder(None if cache_folder is None else Path(cache_folder).expanduser() / folder_name(images, network))
    shape = (len(images), network.dim)
    stored = store.attempt(lambda folder: _read(folder, "features", shape))
    if stored is not None:
        store.attempt(mark_used)
        return stored
    store.attempt(lambda folder: _begin(folder, images, network))
    pieces = _pieces(images, network, store)
    whole = store.attempt(lambda folder: _joined(folder, pieces, shape))
    return np.concatenate(pieces) if whole is None else whole


def _begin(folder: Path, images: ImageSet, network: Network) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"schema": SCHEMA, "images": images.name, "images_checksum": images.checksum, "count": len(images)}
    _write(folder, "about.json", [json.dumps(about | network.facts(), indent=1).encode()])


def _joined(folder: Path, pieces: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Join the pieces to one file, memory-mapped."""
    _join(folder, pieces, shape)
    whole = _read(folder, "features", shape)
    if whole is None:
        raise OSError(5, "what was written does not read back", str(folder))
    _tidy(folder)
    return whole


@cache
def _warn_once(root: Path, reason: str) -> None:
    log.warning("cache: %s: %s; features are computed without being stored", root, reason)


def _warn(root: Path, error: OSError) -> None:
    _warn_once(root, error.strerror or str(error))


def folder_name(images: ImageSet, network: Network) -> str:
    """The folder's name: 32 hex digits of everything that the features depend on."""
    facts = network.facts()
    known = [SCHEMA, images.checksum, *(f"{key}={facts[key]}" for key in sorted(facts))]
    return hashlib.sha256("\n".join(map(str, known)).encode()).hexdigest()[:32]


def _pieces(images: ImageSet, network: Network, store: FeatureFolder) -> list[np.ndarray]:
    """All pieces in order, memory-mapped if they are cached; missing or damaged ones are computed first."""
    rows = [range(start, min(start + PIECE, len(images))) for start in range(0, len(images), PIECE)]
    blocks = {r.start: store.attempt(lambda folder, r=r: _read(folder, _name(r), (len(r), network.dim))) for r in rows}
    missing = [r for r in rows if blocks[r.start] is None]
    prepared = ahead(lambda i: network.prepare(images[i]), (i for r in missing for i in r))
    done = len(images) - sum(map(len, missing))
    with tqdm(total=len(images), initial=done, desc=f"{network.name} features", unit="image") as bar:
        for r in missing:
            block = np.concatenate(list(_batches(network, islice(prepared, len(r)), bar)))
            mapped = store.attempt(lambda folder, r=r, block=block: _store(folder, _name(r), block))
            blocks[r.start] = block if mapped is None else mapped
    return [blocks[r.start] for r in rows]


def _batches(network: Network, prepared: Iterator, bar: tqdm) -> Iterator[np.ndarray]:
    while batch := list(islice(prepared, network.batch)):
        yield network.features(batch)
        bar.update(len(batch))


def _name(rows: range) -> str:
    return f"piece{rows.start // PIECE:06d}"


def _store(folder: Path, stem: str, values: np.ndarray) -> np.ndarray:
    path = _write(folder, f"{stem}-{{}}.npy", [_header(values.shape), values.astype("<f4").tobytes()])
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:  # another process has joined all pieces in the meantime
        return values


def _read(folder: Path, stem: str, shape: tuple[int, int]) -> np.ndarray | None:
    """The cached array of a name, memory-mapped; None if there is none. Damaged files are removed."""
    for path in sorted(folder.glob(f"{stem}-*.npy")):
        try:
            if checksum(path)[:DIGITS] == path.stem.removeprefix(f"{stem}-"):
                values = np.load(path, mmap_mode="r", allow_pickle=False)
                if values.shape == shape and values.dtype == np.float32:
                    return values
        except (FileNotFoundError, ValueError):  # removed by another process, or not an array's header
            continue
        log.warning("%s: damaged, computed again", path)
        path.unlink(missing_ok=True)
    return None


def _join(folder: Path, pieces: list[np.ndarray], shape: tuple[int, int]) -> None:
    """Write the pieces to one file, one at a time."""
    _write(folder, "features-{}.npy", chain([_header(shape)], (piece.astype("<f4").tobytes() for piece in pieces)))


def _header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of float32."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _write(folder: Path, name: str, parts: Iterable[bytes]) -> Path:
    """Write a file atomically: a temporary file is synced and renamed. {} in the name stands for the checksum."""
    temporary = folder / f".{secrets.token_hex(8)}.tmp"  # unique over threads, processes and hosts
    digest = hashlib.sha256()
    try:
        with open(temporary, "xb") as file:
            for part in parts:
                file.write(part)
                digest.update(part)
            file.flush()
            os.fsync(file.fileno())
        path = folder / name.format(digest.hexdigest()[:DIGITS])
        os.replace(temporary, path)
        return path
    finally:
        temporary.unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Remove the pieces, and the temporary files that kills left behind."""
    for path in folder.glob("piece*.npy"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        with suppress(FileNotFoundError):  # its writer has renamed it
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()
