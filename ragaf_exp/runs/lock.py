"""A lock per run folder, across processes and hosts, on any file system with exclusive file creation.

`.owners/` holds one numbered file per owner that the folder has had; the highest number owns it. Once that owner has
released the lock or is dead, a process acquires it by creating the next number, which succeeds for one process only.
Acquiring removes and replaces nothing, so that concurrent attempts, or one that was suspended halfway, do no harm. The
modification time of an owner's file is its heartbeat. It is never compared with a clock: a process that can't check the
owner directly watches whether the time changes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import parse_json
from ragaf_exp.core.safe_files import make_folder, open_regular
from ragaf_exp.runs.owner import Owner

PATIENCE_S = 60.0  # time without a heartbeat after which an owner counts as dead
HISTORY = 16  # newest owners' files that remain
NAME = re.compile(r"[0-9]{8}\.json")  # of an owner's file
LAST = 99_999_999  # the highest number
LARGEST = 65_536  # bytes of an owner's file
POLL_S = 0.5


class LockHeld(UserError):
    """Another process owns the run folder."""


class Lock:
    """The lock of a run folder.

    Args:
        folder: The run folder.
        patience: Seconds without a heartbeat after which an owner counts as dead.
        monotonic: Clock, in seconds; tests replace it.
        sleep: Waits for so many seconds; tests replace it.
    """

    def __init__(
        self, folder: Path, patience: float = PATIENCE_S,
        monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ):  # fmt: skip
        self.folder, self.owners, self.patience = folder, folder / ".owners", patience
        self.monotonic, self.sleep = monotonic, sleep
        self.me: Owner | None = None
        self.number = 0  # of this process's file, 0 = none

    def acquire(self, wait: float = 0.0) -> None:
        """Acquire the lock. Raises LockHeld if its owner is still alive after `wait` seconds."""
        make_folder(self.owners)
        self.me = Owner.me()
        end, watch = self.monotonic() + wait, _Watch(self)
        while True:
            newest = self._newest()
            if newest == LAST:
                raise UserError(f"{self.owners}: damaged (no number is left); remove this folder")
            if newest == 0 or watch.dead(newest):
                if self._create(newest + 1):
                    return
            elif watch.lives and self.monotonic() >= end:
                raise LockHeld(f"{self.folder}: {self._holder(newest)} is running this very config; wait for it")
            else:
                self.sleep(POLL_S)

    def is_held(self) -> bool:
        """Whether this process holds the lock; once another has taken over, this one must write nothing more."""
        return self.number > 0 and self._newest() == self.number

    def beat(self) -> None:
        """Refresh the heartbeat."""
        os.utime(self._file(self.number))

    def release(self) -> None:
        """Release the lock at once, rather than at the end of this process. A forked child can't release its parent's."""
        if self.number and self.me.pid == os.getpid():
            number, self.number = self.number, 0
            with suppress(OSError):  # the folder was removed: the end of this process releases it too
                if self._newest() == number:
                    self._mark_released(number)

    def _mark_released(self, number: int) -> None:
        """Edit the owner's file in place, which works on a full disk."""
        with open(self._file(number), "r+b") as file:
            file.seek(file.read().rindex(b"false"))
            file.write(b"true ")

    def read(self, number: int) -> tuple[Owner | None, bool, int]:
        """Read a number's file: its owner, whether it was released, and its heartbeat in nanoseconds."""
        with open_regular(self._file(number)) as file:  # opened, as network file systems cache the times of closed files
            beat, text = os.fstat(file.fileno()).st_mtime_ns, file.read(LARGEST)
        try:
            content = parse_json(text)
        except ValueError:
            content = None
        return Owner.read(content), isinstance(content, dict) and bool(content.get("released")), beat

    def _create(self, number: int) -> bool:
        """Create an owner's file for this process; False if another process was faster."""
        path = self._file(number)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with open(handle, "w") as file:
                file.write(json.dumps({**self.me.as_dict(), "released": False}) + "\n")
        except OSError:
            path.unlink(missing_ok=True)  # a full disk: the lock stays free
            raise
        if self._newest() != number:  # an old number, whose file had been removed as history
            path.unlink(missing_ok=True)
            return False
        self.number = number
        for old in self._numbers()[:-HISTORY]:
            self._file(old).unlink(missing_ok=True)
        return True

    def _holder(self, number: int) -> str:
        owner, _, _ = self.read(number)
        return f"another process ({owner})" if owner else "another process"

    def _file(self, number: int) -> Path:
        return self.owners / f"{number:08d}.json"

    def _numbers(self) -> list[int]:
        return sorted(int(name[:8]) for name in os.listdir(self.owners) if NAME.fullmatch(name))

    def _newest(self) -> int:
        """Return the highest number; 0 if the folder never had an owner or was removed."""
        try:
            return max(self._numbers(), default=0)
        except FileNotFoundError:
            return 0


class _Watch:
    """Liveness of the newest owner: by its process where that can be checked, else by its heartbeat."""

    def __init__(self, lock: Lock):
        self.lock, self.lives = lock, False
        self.last: tuple[int, int] | None = None  # number and heartbeat at the last check
        self.since = 0.0

    def dead(self, number: int) -> bool:
        """Whether the owner of this number released the lock or is dead."""
        owner, released, beat = self.lock.read(number)
        if released:
            return True
        alive = owner.alive() if owner else None
        now = self.lock.monotonic()
        if self.last is None or self.last[0] != number:
            self.last, self.since, self.lives = (number, beat), now, False
        elif self.last[1] != beat:
            self.last, self.since, self.lives = (number, beat), now, True
        if alive is not None:
            self.lives = alive
            return not alive
        return now - self.since >= self.lock.patience
