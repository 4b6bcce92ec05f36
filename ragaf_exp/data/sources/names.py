"""Look-up of files by names from another system: with backslashes, in another case or Unicode normal form."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def normal(name: str) -> str:
    """Normalise a relative name to identify a file on every system: NFC, with slashes."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def alike(name: str) -> str:
    """Reduce a name to a key that is equal for names differing only in case or normal form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Names:
    """The files under a folder. A subfolder is listed once, when a name in it does not exist as written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._whole: dict[str, dict[str, list[str]]] = {}  # subfolder -> key of `alike` -> names there
        self._stems: dict[str, dict[str, list[str]]] = {}  # the same, without suffixes

    def find(self, name: str) -> str | None:
        """Resolve `name` to the relative name of a file on disk; None if there is none, or several match."""
        if os.path.isfile(self.root / name):
            return name
        matches = self._matches(name.replace("\\", "/"), self._whole)
        return matches[0] if len(matches) == 1 else None

    def with_stem(self, stem: str, suffixes: Iterable[str]) -> str | None:
        """Locate the file with this relative name without suffix, by the first suffix, in any case, that exists."""
        matches = self._matches(stem.replace("\\", "/"), self._stems)
        by_suffix = {Path(match).suffix.lower(): match for match in reversed(matches)}
        return next((by_suffix[suffix] for suffix in suffixes if suffix in by_suffix), None)

    def hint(self, name: str) -> str:
        """List the files that a missing name may mean, as the end of a message; "" if there are none."""
        name = name.replace("\\", "/")
        close = self._matches(name, self._whole) or self._matches(os.path.splitext(name)[0], self._stems)
        return f"; {' and '.join(close[:3])} {'are' if len(close) > 1 else 'is'} there" if close else ""

    def _matches(self, name: str, index: dict[str, dict[str, list[str]]]) -> list[str]:
        """List the relative names of files that `name` may mean, sorted."""
        *parents, last = name.split("/")
        folders = [""]
        for part in parents:
            folders = [f"{folder}{entry}/" for folder in folders for entry in self._listed(folder, self._whole, part)]
        files = [folder + entry for folder in folders for entry in self._listed(folder, index, last)]
        return sorted(file for file in files if os.path.isfile(self.root / file))

    def _listed(self, folder: str, index: dict[str, dict[str, list[str]]], name: str) -> list[str]:
        """List the entries of a subfolder that match a name; none if it is unreadable."""
        if folder not in index:
            index[folder] = self._by_likeness(folder, index is self._stems)
        return index[folder].get(alike(name), [])

    def _by_likeness(self, folder: str, stems: bool) -> dict[str, list[str]]:
        listing: dict[str, list[str]] = defaultdict(list)
        with suppress(OSError):
            for entry in os.listdir(self.root / folder):
                listing[alike(os.path.splitext(entry)[0] if stems else entry)].append(entry)
        return listing
