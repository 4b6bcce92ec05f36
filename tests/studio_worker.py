"""A studio's worker that has loaded a run, for the tests of the server and of the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragaf_exp.studio.jobs import Jobs
from ragaf_exp.studio.worker import Worker


@contextmanager
def loaded(run: Path, runs: Path | None = None) -> Iterator[Worker]:
    """Start a worker with a run and a gallery's folder, wait until it is ready, and close it at the end."""
    worker = Worker(run, Jobs(4), runs=runs)
    worker.start()
    limit = time.monotonic() + 200
    while not worker.ready and worker.error is None and time.monotonic() < limit:
        time.sleep(0.05)
    assert worker.ready, worker.error or "loading took longer than 200 s"
    yield worker
    assert worker.close(30)
