"""Whether a process of this machine runs, and since when: a number alone is reused, a number with its start is not."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def start_of(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process, unaffected by the clock.

    None where there is no such process, where only its entry waits to be collected, and without /proc, as on macOS.
    """
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def exists(pid: int) -> bool:
    """Whether there is a process of this number, whoever's it is."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


def alive(pid: int, started: int | None = None) -> bool:
    """Whether the process runs. started: its start from `start_of`, which detects a reused pid."""
    if not (PROC / "self").exists():
        return exists(pid)
    actual = start_of(pid)
    return actual is not None and started in (None, actual)


def boot() -> str:
    """This boot of the machine and the container's own process numbers; empty without /proc."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink(PROC / "self/ns/pid")
    except OSError:
        return ""
