"""Signals that stop a run: an approaching time limit, a preemption, a cancellation.

During a training step a signal is deferred to the step's end, where a checkpoint is saved. Everywhere else it raises
`Stopped` at once, as Ctrl-C raises KeyboardInterrupt; the interrupted work can be continued or repeated.
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
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)  # by SLURM; by sbatch --signal; by submitit;
# by a closed terminal or connection
REMIND_S = 2.0


class Interrupted(BaseException):
    """A run stopped before its end; the same command continues it.

    Not an Exception, like KeyboardInterrupt, so that no library handles it as an error.
    """


class Stopped(Interrupted):
    """A signal stopped the run outside a training step."""


class Stop:
    """Stop requests to this process. There is one instance, as signals belong to the process."""

    def __init__(self) -> None:
        self.signal_name: str | None = None  # of the signal received, if any
        self.orphaned = False  # the parent that started the job's process is gone: the job is over or was requeued
        self.ending = False  # the run is already ending: further signals have no effect
        self._deferred = False
        self._parent = os.getppid()
        self._before: dict[int, Any] = {}  # previous handlers, perhaps a launcher's

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals in the body; inside another `listening` it has no effect."""
        if self._before or threading.current_thread() is not threading.main_thread():
            yield
            return
        self.signal_name, self.ending, self.orphaned, self._parent = None, False, False, os.getppid()
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
        """Defer signals in the body; only=False: raise Stopped for them, although the body is inside a deferred part."""
        outer, self._deferred = self._deferred, only
        try:
            if not only:
                self._raise()  # for a signal that was deferred
            yield
        finally:
            self._deferred = outer
        if only and not outer:
            self._raise()  # for a signal after the step's last check

    def agreed(self) -> str | None:
        """Return the signal that any of the run's processes received; all of them must call this together."""
        if signal_name := agree_on_stop(self.signal_name):
            self.signal_name = self.signal_name or signal_name
        return signal_name

    def watch_parent(self) -> None:
        """Stop this process if it belongs to a job whose starting process was killed. Called by the heartbeat."""
        if self._before and slurm.job_id() and not self.orphaned and os.getppid() != self._parent:
            self.orphaned = True
            os.kill(os.getpid(), signal.SIGTERM)

    def state(self) -> str:
        """Return the status of a stopped run: cancelled, preempted if it can continue, or failed if orphaned."""
        self.ending = True
        if self.orphaned:
            return "failed"
        job = slurm.name()
        return "cancelled" if self.signal_name and job and slurm.cancelled(job) else "preempted"

    def requeue(self) -> None:
        """Requeue the job, through the launcher's own signal handler if there is one (submitit)."""
        self.ending = True
        handled = [number for number in (signal.SIGUSR2, signal.SIGUSR1) if callable(self._before.get(number))]
        if handled:
            self._before[handled[0]](handled[0], None)
        elif (job := slurm.name()) and slurm.is_first_task():
            slurm.requeue(job)

    def _handle(self, number: int, frame: Any) -> None:
        self.signal_name = signal.Signals(number).name
        if not self._deferred:
            self._raise()

    def _interrupt(self, number: int, frame: Any) -> None:
        """Handle Ctrl-C; another one while the run is ending has no effect."""
        if not self.ending:
            raise KeyboardInterrupt

    def _raise(self) -> None:
        if self.signal_name and not self.ending:
            reminder = threading.Timer(REMIND_S, self._remind)  # a callback from C may swallow the exception
            reminder.daemon = True
            reminder.start()
            raise Stopped(f"stopped by {self.signal_name}")

    def _remind(self) -> None:
        if self._before and self.signal_name and not self.ending:
            interrupt_main(signal.Signals[self.signal_name])


def _ignored(number: int) -> bool:
    """Whether this process ignores the signal since its start, as with nohup or in the background."""
    return number in (signal.SIGHUP, signal.SIGINT) and signal.getsignal(number) is signal.SIG_IGN


STOP = Stop()
