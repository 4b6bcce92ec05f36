"""A bounded key-value store in a folder, one file per entry in 256 shards, for concurrent processes and hosts.

There is no lock and no database: SQLite's locks (diskcache's too, whose values may be pickles) are unreliable on network
file systems. An entry is written to a temporary file and renamed, which is atomic on every file system. Nothing is
synced, as the checksum in an entry (data/cache/entry.py) detects what a power cut or a full disk leaves. Concurrent
writers of one name write the same content.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

from ragaf_exp.store.shards import evict, remove, space, sweep

log = logging.getLogger(__name__)
GIGABYTE = 10**9
SHARDS = tuple(f"{i:02x}" for i in range(256))
REFRESH = 3600.0  # seconds: resolution of an entry's time of last use
LOW_WATER = 0.9  # share of a shard's capacity that eviction leaves, so that it does not run for every entry
RESCAN = 1 / 16  # share of a shard's capacity after whose writing the sizes are read again, for other processes' writes
SUFFIX = ".graph"


class Store:
    """Bytes by name. Never raises OSError: an unreadable entry counts as missing, an unwritable one is not stored.

    Args:
        folder: Created on the first write.
        bound: Total size in bytes; each shard gets a 256th. Every concurrent writer may exceed it by a sixteenth.
    """

    def __init__(self, folder: Path, bound: float):
        self.folder = folder
        self.capacity = int(bound / len(SHARDS))  # bytes of one shard
        self.writable = True
        self.left: dict[Path, int] = {}  # shard -> bytes that may be written before its size is read again
        self.warnings: set[str] = set()  # those already logged: each is logged once

    def path(self, name: str) -> Path:
        """Path of the entry `<16 hex digits>-<32 hex digits>`; the second number's first two digits select the shard."""
        return self.folder / name[17:19] / (name + SUFFIX)

    def read(self, name: str) -> bytes | None:
        """Return an entry's bytes, unchecked, or None if it is missing; mark it as used."""
        path = os.path.join(self.folder, name[17:19], name + SUFFIX)
        try:
            with open(path, "rb", buffering=0) as file:
                content = file.read()
                used = os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn(error)
            return None
        if time.time() - used > REFRESH:
            _touch(path)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Store an entry; does nothing after an earlier failure, or if there is no space for it."""
        if not self.writable:
            return
        path, needed = self.path(name), space(len(content))
        try:
            if self._make_room(path.parent, needed):
                _write(path, content)
                self.left[path.parent] -= needed
        except OSError as error:
            self.writable = False
            self._warn(error)

    def remove(self, name: str) -> None:
        """Remove a damaged entry."""
        remove(str(self.path(name)))

    def describe(self, fingerprint: str, description: dict[str, Any]) -> None:
        """Store the config that the entries of a fingerprint were made with, for `show`."""
        path = self.folder / f"{fingerprint}.json"
        try:
            if self.writable and not path.exists():
                _write(path, json.dumps(description, indent=1).encode())
        except OSError as error:
            self.writable = False
            self._warn(error)

    def _make_room(self, shard: Path, needed: int) -> bool:
        """Evict least recently used entries from a shard until `needed` bytes fit; whether they do."""
        if self.left.get(shard, 0) < needed <= self.capacity:
            sweep(shard)
            _, _, used = evict(shard, self.capacity - needed, int(self.capacity * LOW_WATER) - needed)
            self.left[shard] = min(self.capacity - used, max(needed, int(self.capacity * RESCAN)))
        if self.left.get(shard, 0) >= needed:
            return True
        self._warn_once(f"cache: {self.folder}: entries that don't fit into {self.capacity:,} bytes, a 256th of "
                        "cache.gigabytes, are not stored; raise it")  # fmt: skip
        return False

    def _warn(self, error: OSError) -> None:
        self._warn_once(f"cache: {self.folder}: {error.strerror}; what can't be stored or read there is computed again")

    def _warn_once(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.add(message)
            log.warning(message)


def locate_cache(folder: str) -> Path:
    """Locate the cache: cache.folder, else $RAGAF_CACHE, else ragaf_exp in $XDG_CACHE_HOME or ~/.cache."""
    configured = folder or os.environ.get("RAGAF_CACHE")
    if configured:
        return Path(os.path.expanduser(configured)).absolute()
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if home.startswith("~"):  # a user without a home folder, as in some containers
        home = tempfile.gettempdir()
    return Path(home).absolute() / "ragaf_exp"


def _write(path: Path, content: bytes) -> None:
    """Write a temporary file and rename it, so that a reader sees all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")  # unique over processes and hosts
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        remove(str(temporary))
        raise


def _touch(path: str) -> None:
    try:
        os.utime(path)
    except OSError:  # evicted meanwhile, or another user's, whose own use then decides its age
        log.debug("cache: %s could not be marked as used", path)
