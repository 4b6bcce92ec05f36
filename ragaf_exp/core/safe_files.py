"""Access to the files of a run folder, which may be untrusted: tar, zip and git preserve symbolic links.

Every path here is absolute and, down to the run folder, free of links, as `RunFolder` resolves it. Each folder on the way
is opened relative to the handle of its parent, and no symbolic link is followed: a link inside a run folder is never
read, written or removed through. Only regular files are opened (a pipe would block for ever), and only up to a size.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ragaf_exp.core.errors import UserError

TEXT = 64 * 2**20  # bytes of the largest text or JSON file that is read
LOG = 512 * 2**20  # bytes of the largest log that is read
BINARY = 2 * 2**30  # bytes of the largest file that is read at once
TEMPORARY = re.compile(r"\..+\.[0-9]+(\.[0-9a-f]{8})?\.tmp")  # of `write_atomic`, now and in earlier versions
_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)


@contextmanager
def open_folder(path: Path, make: bool = False) -> Iterator[int]:
    """Open a folder without following symbolic links.

    Args:
        path: The folder.
        make: Create it, and missing parents.

    Yields:
        Its handle, for the `dir_fd` of os's functions.

    Raises:
        UserError: There is a symbolic link among the parents; FileNotFoundError and NotADirectoryError as usual.
    """
    path = path.absolute()
    handle = os.open(path.anchor, _STEP)
    try:
        for depth, name in enumerate(path.parts[1:], 2):
            inner = _step(handle, name, Path(*path.parts[:depth]), make)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def _step(handle: int, name: str, path: Path, make: bool) -> int:
    with _named(path):
        try:
            return os.open(name, _STEP, dir_fd=handle)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=handle)
            return _step(handle, name, path, make=False)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(name, handle):
                raise refused(path) from error
            raise


def make_folder(path: Path) -> Path:
    """Create a folder and its parents. Raises UserError for a symbolic link among them."""
    with open_folder(path, make=True):
        return path


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises UserError for a link, pipe or device; FileNotFoundError as usual."""
    with open_folder(path.parent) as folder, _named(path):
        return os.fdopen(_regular(path, folder, os.O_RDONLY), "rb")


def open_append(path: Path) -> BinaryIO:
    """Open a regular file for reading and appending, and create it if missing.

    Raises UserError for a link, a pipe or a device.
    """
    with open_folder(path.parent) as folder, _named(path):
        return os.fdopen(_regular(path, folder, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+b")


def _regular(path: Path, folder: int, flags: int) -> int:
    try:
        handle = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP or _is_link(path.name, folder):
            raise refused(path) from error
        if error.errno == errno.ENXIO:  # a pipe without a reader, or a socket
            raise UserError(f"{path}: not a regular file; remove it") from error
        raise
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise UserError(f"{path}: not a regular file; remove it")


def read_bounded(path: Path, max_bytes: int = TEXT) -> bytes:
    """Read a regular file. Raises UserError if it is larger than `max_bytes`, or a link, pipe or device."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1) if os.fstat(file.fileno()).st_size <= max_bytes else None
    if content is None or len(content) > max_bytes:
        raise UserError(f"{path}: larger than {max_bytes:,} bytes, which no file of this kind is; restore it")
    return content


def is_regular(path: Path) -> bool:
    """Whether this regular file exists. Raises UserError for a symbolic link on its path, a pipe or a device."""
    try:
        open_regular(path).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether this folder exists. Raises UserError for a symbolic link on its path."""
    try:
        with open_folder(path):
            return True
    except (FileNotFoundError, NotADirectoryError):
        return False


def names_in(path: Path) -> list[str]:
    """List the names in a folder, links included, sorted; empty if it is missing. Raises UserError as `open_folder`."""
    try:
        with open_folder(path) as folder:
            handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return sorted(os.listdir(handle))
    finally:
        os.close(handle)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a temporary file, sync and rename it, so that a reader sees the old content or the new.

    A symbolic link of this name is replaced, not followed. Raises UserError for a symbolic link among the folders.
    """
    temporary = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    with open_folder(path.parent) as folder, _named(path):
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def remove_named(path: Path, names: re.Pattern[str]) -> None:
    """Remove the files of a folder whose full names match, then the folder if that leaves it empty."""
    with suppress(FileNotFoundError):
        with open_folder(path) as folder:
            for name in filter(names.fullmatch, names_in(path)):
                with suppress(IsADirectoryError, PermissionError):
                    os.unlink(name, dir_fd=folder)
        with open_folder(path.parent) as above, suppress(OSError):
            os.rmdir(path.name, dir_fd=above)


def refused(path: Path) -> UserError:
    """Return the error for a symbolic link inside a run folder."""
    return UserError(f"{path}: a symbolic link, which is never followed inside a run folder; remove it, or replace it by a "
                     "copy of its target")  # fmt: skip


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the full path into system errors, instead of the name relative to a handle."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
