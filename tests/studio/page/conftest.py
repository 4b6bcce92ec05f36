"""A studio with a tiny run, and a browser, for the tests of the page."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_driver import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips the test where there is none."""
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="session")
def studio_link(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The link of a studio. $RAGAF_STUDIO_LINK names one that runs already, such as one with a trained run."""
    if running := os.environ.get("RAGAF_STUDIO_LINK"):
        yield running
        return
    run: Path = request.getfixturevalue("finished")
    command = [sys.executable, "-m", "ragaf_exp.studio", f"run={run}", f"runs={run.parents[1]}", "port=0", "open=false"]
    folder = tmp_path_factory.mktemp("studio")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        process.terminate()
