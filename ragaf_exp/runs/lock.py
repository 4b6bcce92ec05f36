"""One process per run folder, on any file system that creates a file only once, and across hosts.

`.owners/` holds one numbered file per owner that the folder ever had; the highest number owns it. Who wants the folder
creates the next number, which succeeds for one taker alone, once the owner has released it or is dead. Nothing is
removed or replaced by a taker, so that two takers, or one that slept between its look and its grasp, do no harm.
The modification time of an owner's file is its heartbeat. It is never compared with a clock: whoever can't ask for the
process itself watches whether it changes.
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

PATIENCE_S = 60.0  # an owner whose heartbeat stands still for so long is dead
KEPT = 16  # newest owners' files
NAME = re.compile(r"[0-9]{8}\.json")  # of an owner's file
LAST = 99_999_999  # the highest number
LARGEST = 65_536  # bytes of an owner's file
POLL_S = 0.5


class LockHeld(UserError):
    """Another process owns the run folder."""


class Lock:
    """The lock of a run folder.

    monotonic, sleep: the clock, for tests.
    """

    def __init__(
        self, folder: Path, patience: float = PATIENCE_S,
        monotonic: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep,
    ):  # fmt: skip
        self.folder, self.owners, self.patience = folder, folder / ".owners", patience
        self.monotonic, self.sleep = monotonic, sleep
        self.me: Owner | None = None
        self.number = 0  # of this process's file, 0 = it has none

    def take(self, wait: float = 0.0) -> None:
        """Own the folder. Taken where its owner lives, and still did `wait` seconds later."""
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

    def held(self) -> bool:
        """False once another process took the folder over: this one was thought dead, and must write nothing more."""
        return self.number > 0 and self._newest() == self.number

    def beat(self) -> None:
        """Show that the owner lives."""
        os.utime(self._file(self.number))

    def release(self) -> None:
        """Let go at once, rather than by this process's end. A forked child does not own what its parent owns."""
        if self.number and self.me.pid == os.getpid():
            number, self.number = self.number, 0
            with suppress(OSError):  # a removed folder: this process's end tells the same
                if self._newest() == number:
                    self._mark_released(number)

    def _mark_released(self, number: int) -> None:
        """In place, which takes no room on a full disk."""
        with open(self._file(number), "r+b") as file:
            file.seek(file.read().rindex(b"false"))
            file.write(b"true ")

    def read(self, number: int) -> tuple[Owner | None, bool, int]:
        """Of a number's file: its owner, whether it was released, and its heartbeat."""
        with open_regular(self._file(number)) as file:  # opened, as network file systems keep old times of closed ones
            beat, text = os.fstat(file.fileno()).st_mtime_ns, file.read(LARGEST)
        try:
            content = parse_json(text)
        except ValueError:
            content = None
        return Owner.read(content), isinstance(content, dict) and bool(content.get("released")), beat

    def _create(self, number: int) -> bool:
        """False where another taker was faster."""
        path = self._file(number)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with open(handle, "w") as file:
                file.write(json.dumps({**self.me.as_dict(), "released": False}) + "\n")
        except OSError:
            path.unlink(missing_ok=True)  # a full disk: nobody owns it
            raise
        if self._newest() != number:  # the number had been free again: its first owners' files are long removed
            path.unlink(missing_ok=True)
            return False
        self.number = number
        for old in self._numbers()[:-KEPT]:
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
        """0 where the folder never had an owner, or is gone with all it held."""
        try:
            return max(self._numbers(), default=0)
        except FileNotFoundError:
            return 0


class _Watch:
    """Whether the newest owner lives: by what it was, else by its heartbeat."""

    def __init__(self, lock: Lock):
        self.lock, self.lives = lock, False
        self.seen: tuple[int, int] | None = None  # number and heartbeat
        self.since = 0.0

    def dead(self, number: int) -> bool:
        owner, released, beat = self.lock.read(number)
        if released:
            return True
        alive = owner.alive() if owner else None
        now = self.lock.monotonic()
        if self.seen is None or self.seen[0] != number:
            self.seen, self.since, self.lives = (number, beat), now, False
        elif self.seen[1] != beat:
            self.seen, self.since, self.lives = (number, beat), now, True
        if alive is not None:
            self.lives = alive
            return not alive
        return now - self.since >= self.lock.patience
