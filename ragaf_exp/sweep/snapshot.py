"""Snapshots of the code and config groups, named by content, so that later edits do not change queued jobs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ragaf_exp.config import packaged
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import sync
from ragaf_exp.core.resources import CONF, PACKAGE, SWEEPS

ROOT = PACKAGE.parent
LIMIT = 5_000_000  # bytes
NAME = re.compile("[0-9a-f]{16}")
ENTRY = b"""from ragaf_exp.sweep.member import command_line

if __name__ == "__main__":  # python SNAPSHOT ...: this folder comes first in sys.path
    command_line()
"""


def take(runs: Path) -> Path:
    """The snapshot of this code in runs/.code/<hash of its content>, written if it is new.

    Raises UserError if it is larger than 5 MB, since then a file that is not code lies in a code folder.
    """
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in _sources()}
    if sum(map(len, files.values())) > LIMIT:
        largest = max(files, key=lambda name: len(files[name]))
        raise UserError(f"{ROOT / largest}: makes the code larger than {LIMIT // 10**6} MB; move it elsewhere")
    files["__main__.py"] = ENTRY
    path = runs / ".code" / _digest(files)
    if not path.exists():
        _write(path, files)
    return path


def find(runs: Path, recorded: str) -> Path | None:
    """The snapshot in runs/.code that a job's record names, None if it is missing.

    The record is not trusted: only the last part of its path is used. Raises UserError if the content does not match the
    digest in the name.
    """
    path = runs / ".code" / Path(recorded).name
    if not NAME.fullmatch(path.name) or not path.is_dir():
        return None
    if path.is_symlink() or path.parent.is_symlink() or _digest(_content(path)) != path.name:
        raise UserError(f"{path}: changed since it was taken, so it is not run; retry with code=now")
    return path


def _content(path: Path) -> dict[str, bytes]:
    """The contents of its files by name; entries that are not regular files get a content that no source file has.

    Compiled modules are removed, as Python would run them instead of the files that are checked here.
    """
    files: dict[str, bytes] = {}
    for folder, inner, names in os.walk(path):
        if "__pycache__" in inner:
            inner.remove("__pycache__")
            _remove(Path(folder, "__pycache__"))
        for file in (Path(folder, name) for name in [*names, *(name for name in inner if Path(folder, name).is_symlink())]):
            plain = file.is_file() and not file.is_symlink() and file.stat().st_size <= LIMIT
            files[file.relative_to(path).as_posix()] = file.read_bytes() if plain else b"\0not a file"
    files.pop(".commit", None)
    return files


def _remove(cache: Path) -> None:
    if cache.is_symlink():
        cache.unlink()
    else:
        shutil.rmtree(cache, ignore_errors=True)


def _sources() -> Iterator[Path]:
    for part in (PACKAGE, ROOT / "eval", *(path for path in (CONF, SWEEPS) if path.parent == ROOT)):
        for folder, inner, names in os.walk(part):
            inner[:] = [name for name in inner if _holds_code(Path(folder, name))]
            yield from (Path(folder, name) for name in names if not name.startswith(".") and not name.endswith(".pyc"))


def _holds_code(folder: Path) -> bool:
    """Whether a folder is part of the code: compiled modules and the packaged weights, which no member needs, are not."""
    return folder.name != "__pycache__" and not folder.name.startswith(".") and folder != packaged.FOLDER


def _digest(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()[:16]


def _write(path: Path, files: dict[str, bytes]) -> None:
    """Write a temporary folder, then rename it; a concurrent writer of the same content uses the first one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, content in {**files, ".commit": _commit()}.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o444)  # an editor then warns before it changes queued code
        for name in files:
            sync(temporary / name)
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _commit() -> bytes:
    """The commit of the checkout, followed by + if it has changes; empty outside a checkout."""
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return b""
    return head + (b"+" if changed else b"")
