"""The studio behind a real address, and a browser, for the tests of its page."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from page_driver import chromium
from studio_worker import loaded

from ragaf_exp.config import packaged
from ragaf_exp.studio.app import Server
from ragaf_exp.studio.guard import access_for
from ragaf_exp.studio.serve import listen
from ragaf_exp.studio.worker import Worker

TOKEN = "a-token-of-the-page"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips the test where there is none."""
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="session")
def studio_link(request: pytest.FixtureRequest) -> Iterator[str]:
    """The link of a studio. $RAGAF_STUDIO_LINK names one that runs already, such as one with a trained run."""
    if running := os.environ.get("RAGAF_STUDIO_LINK"):
        yield running
        return
    with served(request.getfixturevalue("worker")) as link:
        yield link


@pytest.fixture(scope="session")
def demo_link() -> Iterator[str]:
    """The link of a studio with the packaged network: trained, and at 128 px, where small regions do not vanish."""
    with loaded(Path(packaged.run_path(packaged.DEMO))) as worker, served(worker) as link:
        yield link


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
