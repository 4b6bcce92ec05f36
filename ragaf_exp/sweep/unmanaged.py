"""Run folders without a sweep record, e.g. of a plain Hydra multirun. Their differences are read from their configs."""

from __future__ import annotations

import time
from pathlib import Path

from ragaf_exp.runs.flat_config import HASH, flat_config
from ragaf_exp.sweep.status import JobEvidence, Row, job_status, lives_here, read_status


def plain_rows(home: Path) -> list[Row]:
    """A row for each run folder in `home`, with the keys of its config."""
    folders = sorted(path for path in home.iterdir() if HASH.fullmatch(path.name) and path.is_dir())
    return [_row(path, time.time()) for path in folders]


def _row(path: Path, now: float) -> Row:
    status = read_status(path)
    state, error = job_status(status, JobEvidence(lives=lives_here(status)), now)
    return Row(path.name, path, flat_config(path / "config.yaml"), state, error, str(status.get("job") or ""), status)
