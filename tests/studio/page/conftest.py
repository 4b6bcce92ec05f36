"""The studio behind a real address, and a browser, for the tests of its page."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from page_driver import chromium

from ragaf_exp.studio.app import Server
from ragaf_exp.studio.guard import access_for
from ragaf_exp.studio.serve import listen

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
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = Server(request.getfixturevalue("worker")).app(access_for("127.0.0.1", port, TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/#token={TOKEN}"
    server.should_exit = True
    thread.join(10)
