"""What a folder of data holds: its rows, and the names, sizes and contents of its files, to notice when they change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from ragaf_exp.core.files import checksum
from ragaf_exp.data.listing import in_short


@dataclass(frozen=True)
class Entry:
    """One file."""

    size: int  # bytes
    modified: int  # ns; while it stays, the content is not read again
    sha256: str = ""  # of the content; "" as long as it was not read


@dataclass(frozen=True)
class Manifest:
    """Rows and files of a source at one moment."""

    rows: str  # sha256 of names, captions and given splits, in their order
    files: Mapping[str, Entry]  # by name, the same on every host
    paths: Mapping[str, Path]  # where they are on this one

    def as_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "files": {name: list(astuple(entry)) for name, entry in self.files.items()}}

    def digest(self) -> str:
        """16 hex digits; another one wherever something changed, and perhaps where a file that was not read was copied."""
        files = [[name, entry.size, entry.sha256 or entry.modified] for name, entry in sorted(self.files.items())]
        return hashlib.sha256(json.dumps([self.rows, files]).encode()).hexdigest()[:16]

    def differences(self, before: dict[str, Any]) -> list[str]:
        """What is no longer as an earlier manifest, as JSON, says; empty where nothing differs.

        A file of the same size is read only where it was modified since. Raises ValueError, TypeError or KeyError where
        `before` is damaged, OSError where a file can't be read.
        """
        old = {name: Entry(*entry) for name, entry in before["files"].items()}
        kinds = {
            "changed": [n for n, entry in self.files.items() if n in old and not self._same(n, old[n], entry)],
            "missing": [name for name in old if name not in self.files],
            "new": [name for name in self.files if name not in old],
        }
        lines = [f"{len(n)} file{'s' * (len(n) > 1)} {kind} ({in_short(n)})" for kind, n in kinds.items() if n]
        return lines + ["captions or their order changed"] * (self.rows != before["rows"])

    def joined(self, before: dict[str, Any]) -> Manifest:
        """With the checksums that an earlier manifest of the same files has and this one lacks."""
        old = {name: Entry(*entry) for name, entry in before["files"].items()}
        files = {name: old[name] if name in old and not entry.sha256 else entry for name, entry in self.files.items()}
        return Manifest(self.rows, files, self.paths)

    def _same(self, name: str, old: Entry, new: Entry) -> bool:
        if old.size != new.size or not old.sha256:
            return old.size == new.size
        if new.sha256:
            return old.sha256 == new.sha256
        return old.modified == new.modified or old.sha256 == checksum(self.paths[name])


def manifest(rows: Sequence[Any], paths: Mapping[str, Path], sums: Mapping[Path, str]) -> Manifest:
    """The manifest of files as they are now.

    Args:
        rows: What identifies each row, as JSON takes it, in order.
        paths: Files by name. Those that don't exist are left out.
        sums: sha256 of the files that were read, by path.

    Returns:
        Sizes and times from the file system, checksums of what was read.
    """
    files = {}
    for name, path in paths.items():
        try:
            stat = path.stat()
        except OSError:
            continue
        files[name] = Entry(stat.st_size, stat.st_mtime_ns, sums.get(path, ""))
    return Manifest(hashlib.sha256(json.dumps(rows).encode()).hexdigest(), files, paths)
