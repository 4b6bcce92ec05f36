"""Signals that ask a run to stop: a time limit that nears, a preemption, a cancellation.

Within a training step a signal is only noted, and obeyed at the step's end, with a checkpoint. Everywhere else it
raises `Stopped` at once, as Ctrl-C raises KeyboardInterrupt: what runs there is continued or done again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ragaf_exp.jobs import slurm
from ragaf_exp.jobs.processes import agreed

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # SLURM's own; what users give --signal; submitit's


class Interrupted(Exception):
    """A run stopped before its end, where the same command continues it."""


class Stopped(Interrupted):
    """A signal asked for it, outside a training step."""


class Stop:
    """What asked this process to stop. There is one, as signals belong to the process."""

    def __init__(self) -> None:
        self.asked: str | None = None  # the signal's name
        self.orphaned = False  # what started the job's process is gone: the job is over, or will be given to another
        self._noted_only = False
        self._parent = os.getppid()
        self._before: dict[int, Any] = {}  # handlers, the launcher's perhaps

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in here; within another `listening` it changes nothing."""
        if self._before or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.asked, self.orphaned, self._parent = None, False, os.getppid()
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    @contextmanager
    def noted(self, only: bool = True) -> Iterator[None]:
        """In here signals are noted only; only=False: in here, though within such a part, they raise Stopped."""
        outer, self._noted_only = self._noted_only, only
        try:
            yield
        finally:
            self._noted_only = outer

    def agreed(self) -> str | None:
        """By what any of the run's processes was asked to stop, the same in all of them, which call this together."""
        if asked := agreed(self.asked):
            self.asked = self.asked or asked
        return asked

    def watch_parent(self) -> None:
        """Ask this process to stop if it is a job's, and what started it was killed. Called by the heartbeat."""
        if self._before and slurm.job_id() and not self.orphaned and os.getppid() != self._parent:
            self.orphaned = True
            os.kill(os.getpid(), signal.SIGTERM)

    def state(self) -> str:
        """What a stopped run's status is to say. A job that SLURM calls cancelled is; anything else may go on."""
        if self.orphaned:
            return "failed"
        job = slurm.name()
        return "cancelled" if self.asked and job and slurm.cancelled(job) else "preempted"

    def hand_on(self) -> None:
        """Put the job back into the queue. Where a launcher (submitit) listened before, it does so in its own way."""
        theirs = [number for number in (signal.SIGUSR2, signal.SIGUSR1) if callable(self._before.get(number))]
        if theirs:
            self._before[theirs[0]](theirs[0], None)
        elif (job := slurm.name()) and slurm.leads():
            slurm.requeue(job)

    def _handle(self, number: int, frame: Any) -> None:
        first, self.asked = self.asked is None, signal.Signals(number).name
        if first and not self._noted_only:
            raise Stopped(f"stopped by {self.asked}")


STOP = Stop()
