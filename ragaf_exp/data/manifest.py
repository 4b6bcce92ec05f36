"""Manifests of data folders, to detect changes: rows, and the names, sizes and checksums of files."""

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
    modified: int  # ns; the content is read again only if this changes
    sha256: str = ""  # of the content; "" if it has not been read


@dataclass(frozen=True)
class Manifest:
    """Rows and files of a source at one moment."""

    rows: str  # sha256 of names, captions and given splits, in their order
    files: Mapping[str, Entry]  # by name, the same on every host
    paths: Mapping[str, Path]  # by name, on this host

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {"rows": self.rows, "files": {name: list(astuple(entry)) for name, entry in self.files.items()}}

    def digest(self) -> str:
        """Hash to 16 hex digits, which differ after any change, and possibly after copying a file that was not read."""
        files = [[name, entry.size, entry.sha256 or entry.modified] for name, entry in sorted(self.files.items())]
        return hashlib.sha256(json.dumps([self.rows, files]).encode()).hexdigest()[:16]

    def differences(self, before: dict[str, Any]) -> list[str]:
        """List the differences from an earlier manifest, given as JSON; empty if there are none.

        A file of the same size is read only if its modification time changed. Raises ValueError, TypeError or KeyError
        if `before` is damaged, OSError if a file can't be read.
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
        """Add the checksums that an earlier manifest of the same files has and this one lacks."""
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
    """Build the manifest of files as they are now.

    Args:
        rows: Identity of each row as plain values, in order.
        paths: Files by name. Missing files are left out.
        sums: sha256 of the files that were read, by path.

    Returns:
        Sizes and times from the file system, and the checksums.
    """
    files = {}
    for name, path in paths.items():
        try:
            stat = path.stat()
        except OSError:
            continue
        files[name] = Entry(stat.st_size, stat.st_mtime_ns, sums.get(path, ""))
    return Manifest(hashlib.sha256(json.dumps(rows).encode()).hexdigest(), files, paths)
