"""One folder of the cache: what lies in it, and which entries go when it grows too large."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ENTRY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}\.graph")  # what is not named so is none of the cache's, and stays
LEFTOVER = re.compile(r"\.[0-9a-f]{16}(-[0-9a-f]{32}\.graph|\.json)\.[0-9a-f]{16}\.tmp")
BLOCK = 4096  # bytes: files take whole blocks of the disk
STALE = 3600.0  # seconds after which a temporary file is no longer being written


class Entry(NamedTuple):
    """A file of the cache. used: when it was last read or written, within an hour, in seconds since 1970."""

    path: str
    used: float
    space: int  # bytes on disk

    @property
    def fingerprint(self) -> str:
        """Of the config that made it."""
        return os.path.basename(self.path).partition("-")[0]


def space(size: int) -> int:
    """Bytes that a file of `size` bytes takes on disk."""
    return -(-size // BLOCK) * BLOCK


def entries(shard: Path) -> list[Entry]:
    """All entries of a shard; none where it is missing."""
    return [Entry(path, info.st_mtime, space(info.st_size)) for path, info in _files(shard, ENTRY)]


def evict(shard: Path, room: int, target: int) -> tuple[int, int, int]:
    """Where a shard holds more than `room` bytes, the least recently used entries go until it holds `target`.

    Returns the entries removed, the bytes that they took, and the bytes left. Another process may read, write or
    evict here at the same time.
    """
    found = entries(shard)
    left, removed, freed = sum(entry.space for entry in found), 0, 0
    if left <= room:
        return 0, 0, left
    for entry in sorted(found, key=lambda e: e.used):
        if left <= target:
            break
        if remove(entry.path):
            left, removed, freed = left - entry.space, removed + 1, freed + entry.space
    return removed, freed, left


def sweep(folder: Path) -> None:
    """Remove the temporary files that kills left behind."""
    for path, info in _files(folder, LEFTOVER):
        if time.time() - info.st_mtime > STALE:
            remove(path)


def remove(path: str) -> bool:
    """Whether the file is gone: removed here or by another process. Another user's may have to stay."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _files(folder: Path, pattern: re.Pattern) -> list[tuple[str, os.stat_result]]:
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as files:
        for file in files:
            if pattern.fullmatch(file.name):
                with suppress(FileNotFoundError):  # evicted by another process meanwhile
                    found.append((file.path, file.stat(follow_symlinks=False)))
    return found
