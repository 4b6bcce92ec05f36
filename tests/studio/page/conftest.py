"""The studio behind a real address, and a browser, for the tests of its page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_driver import chromium
from studio_worker import loaded, served

from ragaf_exp.config import packaged


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
