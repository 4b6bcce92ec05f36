"""A study of two runs of which one is still being trained: its log grows as the tests add lines."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any


def study_of(finished: Path, root: Path) -> Path:
    """Make a study of a finished run and one that trains; returns the folder of the second."""
    shutil.copytree(finished, root / "study" / "0123456789ab")
    growing = shutil.copytree(finished, root / "study" / "abcdef012345")
    (growing / "metrics.json").unlink()
    state(growing, state="running", trained=False, stage="refine", step=3, steps=9)
    return growing


def state(run: Path, **changes: Any) -> None:
    """Change the status of a run, as its heartbeat would."""
    status = json.loads((run / "status.json").read_text()) | {"updated": time.time()} | changes
    (run / "status.json").write_text(json.dumps(status))


def log(run: Path, step: int, end: str = "\n", **values: Any) -> None:
    """Append a line to metrics.jsonl; `end` = "" leaves it half-written."""
    row = json.dumps({"stage": "refine", "step": step, **values})
    with open(run / "metrics.jsonl", "a") as file:
        file.write(row + end if end else row[: len(row) // 2])
