"""Read files of a sweep's folder. It is untrusted, and files may be half written: only valid parts are used."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.printable import printable

MOST = 10_000_000  # bytes, the largest file that is read


def last_line(path: Path) -> str:
    """The last non-empty line of a log; empty if there is no log."""
    try:
        with open_plain(path) as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except (OSError, UserError):
        return ""
    return next((printable(line.strip()) for line in reversed(lines) if line.strip()), "")


def read_loosely(path: Path) -> dict[str, Any]:
    """A JSON object that another process writes, {} if it is missing or damaged, so that other members are still shown."""
    try:
        with open_plain(path) as file:
            text = file.read(MOST + 1)
        content = json.loads(text) if len(text) <= MOST else None
    except (OSError, UserError, ValueError, RecursionError):
        return {}
    return mapping(content)


def metrics_of(run: Path) -> dict[str, dict[str, Any]]:
    """The metrics in a run's metrics.json by name: `value`, and `ci95` or None without an interval; {} without metrics."""
    metrics = {}
    for name, entry in mapping(read_loosely(run / "metrics.json").get("metrics")).items():
        value, interval = mapping(entry).get("value"), mapping(entry).get("ci95")
        if _finite(value):
            pair = isinstance(interval, list) and len(interval) == 2 and all(map(_finite, interval))
            metrics[name] = {"value": float(value), "ci95": interval if pair else None}
    return metrics


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def mapping(content: Any) -> dict[str, Any]:
    """The content if it is a JSON object, else {}."""
    return content if isinstance(content, dict) else {}


def open_plain(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a regular file of an untrusted folder. Raises UserError if it is a link, a pipe or a device."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EMLINK):
            raise
        raise UserError(f"{path}: a link, pipe or device, not a file; remove it") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path}: a link, pipe or device, not a file; remove it")
    return os.fdopen(handle, "rb" if flags == os.O_RDONLY else "ab")
