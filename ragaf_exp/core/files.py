"""Atomic writes: a reader, or a run that continues after a kill, sees the old file or the new one, never half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import make_folder, open_folder, read_bounded, write_atomic

DEEPEST = 64  # levels of a JSON document that is read
DIGITS = 20  # of an integer in it


def write_bytes(path: Path, content: bytes, own: bool = False) -> None:
    """Replace a file's content atomically: write a temporary file, sync it, rename it.

    Args:
        path: The file. Where it is a symbolic link, the link is replaced.
        content: Its new content.
        own: The file belongs to a run folder, perhaps someone else's: no symbolic link among its folders is followed.

    Raises:
        UserError: With `own`, where there is such a link.
    """
    write_atomic(path if own else path.parent.resolve() / path.name, content)


def write_text(path: Path, content: str, own: bool = False) -> None:
    """Replace a text file's content atomically.

    Args:
        path: The file.
        content: Its new content, written as UTF-8.
        own: As in `write_bytes`.
    """
    write_bytes(path, content.encode(), own)


def write_json(path: Path, content: Any, own: bool = False) -> None:
    """Replace a JSON file's content atomically.

    Args:
        path: The file.
        content: Anything that `json.dumps` takes.
        own: As in `write_bytes`.
    """
    write_text(path, json.dumps(content, indent=1) + "\n", own)


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder or a sweep. Raises UserError if it is missing, not JSON or not a regular file."""
    try:
        return parse_json(read_bounded(path))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: missing; is {path.parent} a run folder? If so, its training command writes it again"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); restore it, or run the training command again") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for invalid JSON, too deep nesting, or an integer of too many digits."""
    try:
        content = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [content]
    for _ in range(DEEPEST):
        level = [value for inner in level if isinstance(inner, dict | list) for value in _values(inner)]
        if not level:
            return content
    raise ValueError("nested too deeply")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _values(content: dict | list) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else content


def read_mapping(path: Path, schema: int) -> dict[str, Any]:
    """Read a JSON object that states its schema. Raises UserError if it is missing, damaged, or newer than `schema`."""
    content = read_json(path)
    version = content.get("schema", 0) if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{path}: damaged (no mapping with a schema); restore it, or run the training command again")
    if version > schema:
        raise UserError(f"{path}: schema {version} is newer than this version's {schema}; update ragaf_exp")
    return content


def is_damaged(path: Path) -> bool:
    """Whether a JSON object's file is missing or holds something else. Raises UserError if it is not a regular file."""
    try:
        content = parse_json(read_bounded(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    return not isinstance(content, dict) or not isinstance(content.get("schema", 0), int)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Create a folder atomically: fill a temporary one, sync its files, and rename it to `path`, which must not exist.

    Missing parent folders are made. Raises UserError for a symbolic link among them, as `path` is in a run folder.
    """
    temporary = make_folder(path.parent) / f".{path.name}.tmp"
    remove_folder(temporary)
    try:
        temporary.mkdir()
        fill(temporary)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        os.rename(temporary, path)
        sync(path.parent)
    finally:
        remove_folder(temporary)


def remove_folder(path: Path) -> None:
    """Remove a folder inside a run folder with its content; a symbolic link of this name is removed, not followed.

    Raises UserError for a symbolic link among its parent folders.
    """
    with suppress(FileNotFoundError), open_folder(path.parent) as above:
        if path.is_symlink():
            os.unlink(path.name, dir_fd=above)
        else:
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """Compute the sha256 of a file, reading it in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
