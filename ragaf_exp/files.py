"""Atomic writes: a reader, or a run that continues after a kill, sees the old file or the new one, never half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragaf_exp.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside, sync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """UserError where the file is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; is {path.parent} a run folder? If so, its training command writes it again") \
            from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({error}); restore it, or run the training command again") from error


def read_mapping(path: Path, schema: int) -> dict[str, Any]:
    """A JSON object that says its schema. UserError where it is missing, damaged, or newer than `schema`."""
    content = read_json(path)
    found = content.get("schema", 0) if isinstance(content, dict) else None
    if not isinstance(found, int):
        raise UserError(f"{path}: damaged (no mapping with a schema); restore it, or run the training command again")
    if found > schema:
        raise UserError(f"{path}: schema {found} is newer than this version's {schema}; update ragaf_exp")
    return content


def is_damaged(path: Path) -> bool:
    """Whether a file of a JSON object is missing, or holds something else."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return True
    return not isinstance(content, dict) or not isinstance(content.get("schema", 0), int)


def write_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary folder, sync what it holds, and rename it to `path`, which must not exist."""
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        os.rename(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
