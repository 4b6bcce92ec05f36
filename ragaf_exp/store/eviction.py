"""Eviction of image sets' features on disk (eval/features/cached.py): least recently used sets go first."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = "features"  # in the cache's folder
SET_NAME = re.compile(r"[0-9a-f]{32}")  # a set's folder; other names are never removed
STALE = 3600.0  # seconds after which an incomplete set is no longer being written


class CachedSet(NamedTuple):
    """The features of one image set by one network."""

    path: Path
    used: float  # time of the last read or write, in seconds since 1970
    space: int  # bytes
    whole: bool


def cached_sets(root: Path) -> list[CachedSet]:
    """List all sets under a folder, the least recently used first; empty if it is missing."""
    sets = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root) as folders:
        for folder in folders:
            if SET_NAME.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):  # removed by another process meanwhile
                    sets.append(_read(Path(folder.path)))
    return sorted(sets, key=lambda one: one.used)


def mark_used(folder: Path) -> None:
    """Record that a set was read just now."""
    with suppress(OSError):  # another user's, whose own use then decides its age
        os.utime(folder)


def evict(root: Path, bound: float) -> tuple[int, int, int]:
    """Remove the least recently used sets until the rest take at most `bound` bytes; 0 removes all.

    A set that another process is still writing stays.

    Returns:
        The number of sets removed, the bytes freed, and the bytes left.
    """
    sets = cached_sets(root)
    left, removed, freed = sum(one.space for one in sets), 0, 0
    for one in sets:
        if left <= bound:
            break
        if one.whole or time.time() - one.used > STALE:
            shutil.rmtree(one.path, ignore_errors=True)
            if not one.path.exists():
                left, removed, freed = left - one.space, removed + 1, freed + one.space
    return removed, freed, left


def _read(folder: Path) -> CachedSet:
    files = [(path.name, path.stat().st_size) for path in folder.iterdir()]
    whole = any(name.startswith("features-") for name, _ in files)
    return CachedSet(folder, folder.stat().st_mtime, sum(size for _, size in files), whole)
