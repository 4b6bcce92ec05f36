"""One cluster for all tests here, which run by `make slurm-test` only: they need root, Debian's SLURM, and minutes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing

collect_ignore_glob = [] if os.environ.get("RAGAF_SLURM") else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if why := missing():
        pytest.skip(why)
    given = os.environ.get("SLURM_BASE")
    base = Path(given or tempfile.mkdtemp(prefix="ragaf_exp-slurm-"))
    shutil.rmtree(base, ignore_errors=True)
    here = Cluster(base, cpus=8)
    here.start()
    yield here
    here.stop()
    if not given:
        shutil.rmtree(base)
