"""Jobs: one at a time is worked on, some wait, and the newest that ended stay for a while.

The networks are shared state, so a single thread does all of the work. Its events are read by streams in the server's
event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ragaf_exp.inference.recipes import Recipe
from ragaf_exp.studio.events import Event

LIFETIME_S = 15 * 60.0  # of a job after its end
MOST_JOBS, MOST_BYTES = 50, 64 * 2**20  # that ended and stay
GRACE_S = 15.0  # time without a listener after which the page counts as closed


class Busy(Exception):
    """No further job is taken; the message gives the reason."""


@dataclass
class Job:
    """A job with its events so far and the files of its result."""

    client: str
    recipe: Recipe
    details: bool
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    events: list[Event] = field(default_factory=list)
    files: dict[str, Callable[[], bytes]] = field(default_factory=dict)  # name -> makes its content
    bytes: int = 0  # that its events and files take
    stop: threading.Event = field(default_factory=threading.Event)
    ended: float | None = None  # by time.monotonic
    listeners: int = 0
    unheard: float = field(default_factory=time.monotonic)  # since when there has been no listener
    _wake: dict[asyncio.Event, asyncio.AbstractEventLoop] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self, kind: str, **data: Any) -> None:
        """Add an event, and wake the streams that wait for it."""
        event = Event(kind, data)
        with self._lock:
            if self.ended is not None:
                return
            self.events.append(event)
            self.bytes += event.size()
            if event.ends:
                self.ended = time.monotonic()
            waiting = list(self._wake.items())
        for wake, loop in waiting:
            loop.call_soon_threadsafe(wake.set)

    def stopped(self) -> bool:
        """Whether it should stop: on request, or as its page has been closed."""
        return self.stop.is_set() or self.abandoned()

    def abandoned(self) -> bool:
        """Whether its events have had no listener for GRACE_S."""
        return self.ended is None and self.listeners == 0 and time.monotonic() - self.unheard > GRACE_S

    def listen(self) -> asyncio.Event:
        """Register a stream of the running event loop; its event is set when there is something new."""
        wake = asyncio.Event()
        with self._lock:
            self._wake[wake] = asyncio.get_running_loop()
            self.listeners += 1
        return wake

    def leave(self, wake: asyncio.Event) -> None:
        """Remove a stream."""
        with self._lock:
            del self._wake[wake]
            self.listeners -= 1
            self.unheard = time.monotonic()


class Jobs:
    """The jobs of a server.

    Args:
        capacity: Number of jobs that may wait.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.running: Job | None = None
        self._waiting: deque[Job] = deque()
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._changed = threading.Condition()

    def add(self, job: Job) -> int:
        """Queue a job.

        Returns:
            The number of jobs before it.

        Raises:
            Busy: The queue is full, or the client has a job already.
        """
        with self._changed:
            self._sweep()
            if any(other.client == job.client and other.ended is None for other in self._active()):
                raise Busy("your last job is not done yet; stop it first")
            ahead = len(self._waiting) + (self.running is not None)
            if ahead > self.capacity:
                raise Busy(f"busy: {ahead - 1} jobs are waiting; try again in some seconds")
            self._waiting.append(job)
            job.report("queued", ahead=ahead)
            self._changed.notify()
            return ahead

    def get(self, identity: str, client: str) -> Job | None:
        """Look up a job of a client; jobs of other clients are not visible."""
        with self._changed:
            self._sweep()
            listed = {job.id: job for job in self._active()} | self._ended
        job = listed.get(identity)
        return job if job is not None and secrets.compare_digest(job.client, client) else None

    def stop(self, job: Job) -> bool:
        """Stop a job, queued or running; False if it has ended."""
        with self._changed:
            if job.ended is not None:
                return False
            job.stop.set()
            self._sweep()
            return True

    def take(self, timeout: float) -> Job | None:
        """Wait for the next job and make it the running one; None if there is none within `timeout` seconds."""
        with self._changed:
            self._sweep()
            if not self._waiting:
                self._changed.wait(timeout)
                self._sweep()
            if not self._waiting:
                return None
            self.running = self._waiting.popleft()
            self._announce()
            return self.running

    def waiting(self) -> bool:
        """Whether a job is waiting."""
        return bool(self._waiting)

    def finish(self, job: Job) -> None:
        """Move a job that the worker is done with to those that ended."""
        with self._changed:
            self.running = None
            self._end(job)
            self._announce()

    def close(self) -> None:
        """Stop every job."""
        for job in self._active():
            self.stop(job)

    def _active(self) -> Iterator[Job]:
        if self.running is not None:
            yield self.running
        yield from list(self._waiting)

    def _announce(self) -> None:
        """Report the number of jobs before each one that waits, where it has changed."""
        for place, job in enumerate(self._waiting):
            ahead = place + (self.running is not None)
            if job.events[-1].data != {"ahead": ahead}:
                job.report("queued", ahead=ahead)

    def _sweep(self) -> None:
        """Drop waiting jobs that were stopped, and ended ones that are old or too many."""
        for job in [job for job in self._waiting if job.stopped()]:
            self._waiting.remove(job)
            job.report("stopped")
            self._end(job)
        now = time.monotonic()
        while self._ended:
            oldest = next(iter(self._ended.values()))
            total = sum(job.bytes for job in self._ended.values())
            old = oldest.ended is not None and now - oldest.ended > LIFETIME_S
            if not old and len(self._ended) <= MOST_JOBS and (total <= MOST_BYTES or len(self._ended) == 1):
                return
            self._ended.popitem(last=False)

    def _end(self, job: Job) -> None:
        self._ended[job.id] = job
