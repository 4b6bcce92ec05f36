"""One shard folder of the cache: listing and eviction of its entries."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ENTRY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}\.graph")  # other names are never removed
LEFTOVER = re.compile(r"\.[0-9a-f]{16}(-[0-9a-f]{32}\.graph|\.json)\.[0-9a-f]{16}\.tmp")
BLOCK = 4096  # bytes: files occupy whole disk blocks
STALE = 3600.0  # seconds after which a temporary file is no longer being written


class Entry(NamedTuple):
    """A file of the cache."""

    path: str
    used: float  # time of the last read or write, to within an hour, in seconds since 1970
    space: int  # bytes on disk

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the config that made the entry."""
        return os.path.basename(self.path).partition("-")[0]


def space(size: int) -> int:
    """Round the size of a file up to the bytes that it occupies on disk."""
    return -(-size // BLOCK) * BLOCK


def entries(shard: Path) -> list[Entry]:
    """List all entries of a shard; empty if it is missing."""
    return [Entry(path, info.st_mtime, space(info.st_size)) for path, info in _files(shard, ENTRY)]


def evict(shard: Path, capacity: int, target: int) -> tuple[int, int, int]:
    """Remove least recently used entries of a shard that is too large.

    Other processes may read, write or evict there at the same time.

    Args:
        shard: The shard's folder.
        capacity: Bytes up to which nothing is removed.
        target: Bytes to reduce it to.

    Returns:
        The number of entries removed, the bytes freed, and the bytes left.
    """
    present = entries(shard)
    left, removed, freed = sum(entry.space for entry in present), 0, 0
    if left <= capacity:
        return 0, 0, left
    for entry in sorted(present, key=lambda e: e.used):
        if left <= target:
            break
        if remove(entry.path):
            left, removed, freed = left - entry.space, removed + 1, freed + entry.space
    return removed, freed, left


def sweep(folder: Path) -> None:
    """Remove temporary files that killed processes left behind."""
    for path, info in _files(folder, LEFTOVER):
        if time.time() - info.st_mtime > STALE:
            remove(path)


def remove(path: str) -> bool:
    """Remove a file; whether it is gone, by this or another process. Another user's file may have to stay."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _files(folder: Path, pattern: re.Pattern) -> list[tuple[str, os.stat_result]]:
    matches = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as files:
        for file in files:
            if pattern.fullmatch(file.name):
                with suppress(FileNotFoundError):  # evicted by another process meanwhile
                    matches.append((file.path, file.stat(follow_symlinks=False)))
    return matches
