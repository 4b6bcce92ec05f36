"""Listing of picture folders by the rule that all commands share: hidden names are skipped.

Hidden are the copies in .ipynb_checkpoints, macOS's ._ files and any other name that begins with a dot. Damaged files
are listed, as only decoding detects them; the command that decodes counts and names them.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ragaf_exp.data.decode import SUFFIXES

SHOWN = 3  # names in a message


def is_hidden(name: str) -> bool:
    """Whether a file's or folder's name is one that commands skip when they list a folder."""
    return name.startswith(".")


def visible(paths: Iterable[Path]) -> list[Path]:
    """Sort the paths whose last part is not hidden."""
    return sorted(path for path in paths if not is_hidden(path.name))


def listed(root: Path) -> tuple[list[Path], list[Path]]:
    """List the pictures anywhere under a folder, and the other files: relative to it, sorted, without hidden ones."""
    pictures, others = [], []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not is_hidden(name)]
        for path in (Path(folder, name).relative_to(root) for name in names if not is_hidden(name)):
            (pictures if path.suffix.lower() in SUFFIXES else others).append(path)
    return sorted(pictures, key=Path.as_posix), sorted(others, key=Path.as_posix)


def by_stem(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, str]:
    """Map the stems of a folder's files with these suffixes, NFC, to the names on disk: sorted, without hidden ones.

    Empty if there is no such folder. Of two files with one stem, the later name in the order of names counts.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not is_hidden(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    parts = (os.path.splitext(name) for name in names)
    pairs = zip(parts, names, strict=True)
    return {unicodedata.normalize("NFC", stem): name for (stem, suffix), name in pairs if suffix.lower() in suffixes}


def folders_in(folder: Path) -> list[str]:
    """List the names of a folder's visible subfolders, sorted."""
    return [path.name for path in visible(folder.iterdir()) if path.is_dir()]


def in_short(parts: list[str], separator: str = ", ") -> str:
    """Join the first few parts, and say how many more there are."""
    more = f"{separator}and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return separator.join(parts[:SHOWN]) + more
