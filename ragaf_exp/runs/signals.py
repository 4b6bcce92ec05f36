"""Signals that ask a run to stop: a time limit that nears, a preemption, a cancellation.

Within a training step a signal is only noted, and obeyed at the step's end, with a checkpoint. Everywhere else it
raises `Stopped` at once, as Ctrl-C raises KeyboardInterrupt: what runs there is continued or done again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ragaf_exp.distributed.launch import agree_on_stop
from ragaf_exp.runs import slurm

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)  # SLURM's own; what users give --signal;
# submitit's; that of a terminal or connection that is gone
REMIND_S = 2.0


class Interrupted(BaseException):
    """A run stopped before its end, where the same command continues it. As KeyboardInterrupt, no library takes it for
    an error of its own.
    """


class Stopped(Interrupted):
    """A signal asked for it, outside a training step."""


class Stop:
    """What asked this process to stop. There is one, as signals belong to the process."""

    def __init__(self) -> None:
        self.asked: str | None = None  # the signal's name
        self.orphaned = False  # what started the job's process is gone: the job is over, or will be given to another
        self.obeyed = False  # the run is ending: a further signal changes nothing
        self._noted_only = False
        self._parent = os.getppid()
        self._before: dict[int, Any] = {}  # handlers, the launcher's perhaps

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in here; within another `listening` it changes nothing."""
        if self._before or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.asked, self.obeyed, self.orphaned, self._parent = None, False, False, os.getppid()
        handlers = dict.fromkeys(SIGNALS, self._handle) | {signal.SIGINT: self._interrupt}
        self._before = {number: signal.signal(number, call) for number, call in handlers.items() if not _ignored(number)}
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    @contextmanager
    def deferred(self, only: bool = True) -> Iterator[None]:
        """In here signals are noted only; only=False: in here, though within such a part, they raise Stopped."""
        outer, self._noted_only = self._noted_only, only
        try:
            if not only:
                self._raise()  # what came while it was only noted
            yield
        finally:
            self._noted_only = outer
        if only and not outer:
            self._raise()  # what came after the last look

    def agreed(self) -> str | None:
        """By what any of the run's processes was asked to stop, the same in all of them, which call this together."""
        if asked := agree_on_stop(self.asked):
            self.asked = self.asked or asked
        return asked

    def watch_parent(self) -> None:
        """Ask this process to stop if it is a job's, and what started it was killed. Called by the heartbeat."""
        if self._before and slurm.job_id() and not self.orphaned and os.getppid() != self._parent:
            self.orphaned = True
            os.kill(os.getpid(), signal.SIGTERM)

    def state(self) -> str:
        """What a stopped run's status is to say: cancelled, or preempted where it may go on; failed for an orphan."""
        self.obeyed = True
        if self.orphaned:
            return "failed"
        job = slurm.name()
        return "cancelled" if self.asked and job and slurm.cancelled(job) else "preempted"

    def requeue(self) -> None:
        """Put the job back into the queue. Where a launcher (submitit) listened before, it does so in its own way."""
        self.obeyed = True
        theirs = [number for number in (signal.SIGUSR2, signal.SIGUSR1) if callable(self._before.get(number))]
        if theirs:
            self._before[theirs[0]](theirs[0], None)
        elif (job := slurm.name()) and slurm.is_first_task():
            slurm.requeue(job)

    def _handle(self, number: int, frame: Any) -> None:
        self.asked = signal.Signals(number).name
        if not self._noted_only:
            self._raise()

    def _interrupt(self, number: int, frame: Any) -> None:
        """Ctrl-C: one more while the run is ending changes nothing."""
        if not self.obeyed:
            raise KeyboardInterrupt

    def _raise(self) -> None:
        if self.asked and not self.obeyed:
            reminder = threading.Timer(REMIND_S, self._remind)  # a callback from C may swallow what is raised in it
            reminder.daemon = True
            reminder.start()
            raise Stopped(f"stopped by {self.asked}")

    def _remind(self) -> None:
        if self._before and self.asked and not self.obeyed:
            interrupt_main(signal.Signals[self.asked])


def _ignored(number: int) -> bool:
    """Whether this process was started, by nohup or in the background, to outlive its terminal or to ignore Ctrl-C."""
    return number in (signal.SIGHUP, signal.SIGINT) and signal.getsignal(number) is signal.SIG_IGN


STOP = Stop()
