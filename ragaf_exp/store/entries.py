"""Entries by name in a folder: one file each, in 256 shards, bounded in size; many processes and hosts at once.

No lock and no database: SQLite's locks (diskcache's too, whose values may be pickles) are unreliable on network file
systems. An entry is written beside and renamed, which every file system does at once; its checksum (entry.py) finds
what a power cut or a full disk leaves, so nothing is synced. Two writers of one name write the same content.
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
REFRESH = 3600.0  # seconds: an entry's time of last use is kept to this
LOW = 0.9  # of a shard's room: what eviction leaves, so that it is not run again for every entry
LOOK = 1 / 16  # of a shard's room: after writing so much, what other processes wrote is looked at
SUFFIX = ".graph"


class Store:
    """Bytes by name. Never raises OSError: what can't be read is missing, what can't be written is not kept.

    folder: made when first written to. bound: bytes in all; each shard has a 256th of it. Several processes that write
    at once may exceed it by a sixteenth each.
    """

    def __init__(self, folder: Path, bound: float):
        self.folder = folder
        self.room = int(bound / len(SHARDS))  # bytes, of one shard
        self.writable = True
        self.left: dict[Path, int] = {}  # by shard: bytes that may be written before its size is looked at again
        self.said: set[str] = set()  # warnings: each once

    def path(self, name: str) -> Path:
        """name: `<16 hex digits>-<32 hex digits>`; the second number's first two choose the shard."""
        return self.folder / name[17:19] / (name + SUFFIX)

    def read(self, name: str) -> bytes | None:
        """An entry's bytes as they lie there, None where it is missing. Marks it as used."""
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
        """Keep an entry; after a failure, and where there is no room for it, nothing is written."""
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
        """Drop an entry that turned out to be damaged."""
        remove(str(self.path(name)))

    def describe(self, fingerprint: str, description: dict[str, Any]) -> None:
        """Keep for `show` what config the entries of a fingerprint were made by."""
        path = self.folder / f"{fingerprint}.json"
        try:
            if self.writable and not path.exists():
                _write(path, json.dumps(description, indent=1).encode())
        except OSError as error:
            self.writable = False
            self._warn(error)

    def _make_room(self, shard: Path, needed: int) -> bool:
        """Whether an entry of so many bytes goes into a shard; the least recently used ones make way."""
        if self.left.get(shard, 0) < needed <= self.room:
            sweep(shard)
            _, _, taken = evict(shard, self.room - needed, int(self.room * LOW) - needed)
            self.left[shard] = min(self.room - taken, max(needed, int(self.room * LOOK)))
        if self.left.get(shard, 0) >= needed:
            return True
        self._say(f"cache: {self.folder}: entries that don't fit into {self.room:,} bytes, a 256th of cache.gigabytes, "
                  "are not kept; raise it")  # fmt: skip
        return False

    def _warn(self, error: OSError) -> None:
        self._say(f"cache: {self.folder}: {error.strerror}; what can't be kept or read there is computed again")

    def _say(self, message: str) -> None:
        if message not in self.said:
            self.said.add(message)
            log.warning(message)


def place(folder: str) -> Path:
    """Where the cache lies: cache.folder, else $RAGAF_CACHE, else ragaf_exp in $XDG_CACHE_HOME or ~/.cache."""
    given = folder or os.environ.get("RAGAF_CACHE")
    if given:
        return Path(os.path.expanduser(given)).absolute()
    home = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if home.startswith("~"):  # a user without a home, as in some containers
        home = tempfile.gettempdir()
    return Path(home).absolute() / "ragaf_exp"


def _write(path: Path, content: bytes) -> None:
    """Beside, then renamed: a reader sees all of it or nothing."""
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
    except OSError:  # evicted meanwhile, or another user's: then its owner's use alone counts
        log.debug("cache: %s could not be marked as used", path)
