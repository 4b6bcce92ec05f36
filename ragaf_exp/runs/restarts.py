"""Detection of requeue loops: after a few starts in a row without progress, a job fails instead of being requeued."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_json
from ragaf_exp.runs import slurm

STARTS = 5  # in a row: one or two badly timed preemptions are not the job's fault


def requeue_loop_reason(folder: Path, progressed: bool) -> str | None:
    """Decide whether a stopped job should be requeued. Called once, at its end.

    Args:
        folder: The run's folder, which need not exist; its `.starts.json` counts this job's starts without progress.
        progressed: Whether this start wrote something that the next need not repeat: a step, a checkpoint, images.

    Returns:
        The reason not to requeue it, or None if it may be.
    """
    job, path = slurm.name(), folder / ".starts.json"
    if job is None or not slurm.is_first_task():
        return None
    if progressed:
        path.unlink(missing_ok=True)
        return None
    known: dict = {}
    with suppress(OSError, UserError):  # missing, or damaged by a kill: this counts as the first start
        known = read_mapping(folder.resolve() / path.name, 1)
    count = 1 + (known["count"] if known.get("job") == job else 0)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"schema": 1, "job": job, "count": count})
    if count < STARTS:
        return None
    return (f"{folder}: job {job} was stopped {count} times in a row without any progress; its time limit "
            f"({slurm.limit(job)}), less cluster.grace, is shorter than its start-up: submit "
            "again with more cluster.minutes")  # fmt: skip
