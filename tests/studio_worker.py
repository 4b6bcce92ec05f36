"""A studio's worker that has loaded a run, for the tests of the server and of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from ragaf_exp.studio.app import Server
from ragaf_exp.studio.guard import access_for
from ragaf_exp.studio.jobs import Jobs
from ragaf_exp.studio.serve import listen
from ragaf_exp.studio.worker import Worker

TOKEN = "a-token-of-the-page"


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


@contextmanager
def served(worker: Worker) -> Iterator[str]:
    """Serve a worker's studio at a real address; yields its link."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = Server(worker).app(access_for("127.0.0.1", port, TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/#token={TOKEN}"
    server.should_exit = True
    thread.join(10)
