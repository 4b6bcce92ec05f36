"""Image sets' features on disk (statistics.py), bounded in size: the sets that were used longest ago go first."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

FOLDER = "features"  # in the cache's folder
PLACE = re.compile(r"[0-9a-f]{32}")  # a set's folder; what is not named so is none of ours, and stays
STALE = 3600.0  # seconds after which what is not whole is no longer being written


class KeptSet(NamedTuple):
    """The features of one image set by one network. used: when they were last read or written, in seconds since 1970."""

    path: Path
    used: float
    space: int  # bytes
    whole: bool


def kept_sets(root: Path) -> list[KeptSet]:
    """All sets under a folder, the one that was used longest ago first; none where it is missing."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root) as folders:
        for folder in folders:
            if PLACE.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):  # removed by another process meanwhile
                    found.append(_read(Path(folder.path)))
    return sorted(found, key=lambda one: one.used)


def mark_used(folder: Path) -> None:
    """Note that a set was read just now."""
    with suppress(OSError):  # another user's: then its owner's use alone counts
        os.utime(folder)


def evict(root: Path, bound: float) -> tuple[int, int, int]:
    """Remove sets until the rest take no more than `bound` bytes; 0 removes all of them.

    A set that another process is still writing stays. Returns the sets removed, the bytes that they took, and the bytes
    left.
    """
    found = kept_sets(root)
    left, removed, freed = sum(one.space for one in found), 0, 0
    for one in found:
        if left <= bound:
            break
        if one.whole or time.time() - one.used > STALE:
            shutil.rmtree(one.path, ignore_errors=True)
            if not one.path.exists():
                left, removed, freed = left - one.space, removed + 1, freed + one.space
    return removed, freed, left


def _read(folder: Path) -> KeptSet:
    files = [(path.name, path.stat().st_size) for path in folder.iterdir()]
    whole = any(name.startswith("features-") for name, _ in files)
    return KeptSet(folder, folder.stat().st_mtime, sum(size for _, size in files), whole)
