"""Starts of a job that leave nothing behind: after a few in a row it fails, rather than be queued again for ever."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_json
from ragaf_exp.runs import slurm

STARTS = 5  # in a row: a preemption or two in bad moments are none of the job's fault


def requeue_loop_reason(place: Path, progressed: bool) -> str | None:
    """Why a job that was stopped should not be queued again, None where it may be. Called once, at its end.

    place: the run's folder, perhaps yet to be made, whose `.starts.json` counts this job's starts without progress.
    progressed: whether this start wrote something that the next need not do again: a step, a checkpoint, images.
    """
    job, path = slurm.name(), place / ".starts.json"
    if job is None or not slurm.is_first_task():
        return None
    if progressed:
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
