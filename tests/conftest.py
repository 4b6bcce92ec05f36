"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real test data: $RAGAF_TEST_DATA, or ../shared beside the checkout; skips where neither is."""
    given = os.environ.get("RAGAF_TEST_DATA")
    base = Path(given) if given else Path(__file__).resolve().parents[2] / "shared"
    for folder in (base / "data", base):
        if (folder / "openmoji72").is_dir():
            return folder
    pytest.skip(f"no real test data: {base}/data/openmoji72 is absent; set RAGAF_TEST_DATA")
