"""Starts of a job that leave nothing behind: after a few in a row it fails, rather than be queued again for ever."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_json
from ragaf_exp.runs import slurm

STARTS = 5  # in a row: a preemption or two in bad moments are none of the job's fault
_kept = False


def keeps() -> None:
    """This process has kept something that a later start need not do again: a step, a checkpoint, images."""
    global _kept
    _kept = True


def in_vain(place: Path) -> str | None:
    """Why a job that was asked to stop should not be queued again, None where it may be. Called once, at its end.

    place: the run's folder, perhaps yet to be made, whose `.starts.json` counts this job's starts that kept nothing.
    """
    job, path = slurm.name(), place / ".starts.json"
    if job is None or not slurm.leads():
        return None
    if _kept:
        path.unlink(missing_ok=True)
        return None
    known: dict = {}
    with suppress(OSError, UserError):  # none, or cut short by a kill: then it is the first
        known = read_mapping(place.resolve() / path.name, 1)
    count = 1 + (known["count"] if known.get("job") == job else 0)
    place.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": 1, "job": job, "count": count})
    if count < STARTS:
        return None
    return (f"{place}: job {job} was stopped {count} times in a row before it had done anything; its time limit "
            f"({slurm.limit(job)}), less cluster.grace, is shorter than its start-up: submit "
            "again with more cluster.minutes")  # fmt: skip
