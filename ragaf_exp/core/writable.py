"""Checks that results can be written, which every command makes before its work instead of after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ragaf_exp.core.errors import UserError


def check_folder(path: Path, key: str, remedy: str = "choose another folder") -> None:
    """Check that files can be written to a folder that exists or can be made; the check leaves nothing behind.

    Args:
        path: The folder.
        key: The argument that names it, for the message.
        remedy: What to do where it can't be written to.

    Raises:
        UserError: The folder can't be written to.
    """
    _try(path.absolute(), f"{key}={path}", remedy)


def check_file(path: Path, key: str, remedy: str = "choose another file") -> None:
    """Check that a file can be written or replaced.

    Args:
        path: The file.
        key: The argument that names it, for the message.
        remedy: What to do where it can't be written.

    Raises:
        UserError: The file can't be written.
    """
    if path.is_dir():
        raise UserError(f"{key}={path}: a folder stands where a file is needed; {remedy}")
    if path.exists() and not path.is_file():
        raise UserError(f"{key}={path}: is no regular file; {remedy}")
    _try(path.absolute().parent, f"{key}={path}", remedy)


def _try(folder: Path, what: str, remedy: str) -> None:
    """Try to write to the folder, or to its nearest parent that exists."""
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            raise UserError(f"{what}: a file stands where a folder is needed ({nearest}); {remedy}")
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        raise UserError(f"{what}: can't be written to ({error.strerror}); {remedy}") from error
