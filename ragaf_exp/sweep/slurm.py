"""Members as SLURM jobs, by its own commands. A job is a shell script that can be read and sent again.

Not submitit: its jobs are pickles, whose result files must be where they were left, and it asks sacct alone how a job
ended. Here nothing but the run folder carries state, and SLURM requeues the job under its own id.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ragaf_exp.config.schema import Cluster
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.runs import slurm_commands
from ragaf_exp.sweep.ledger import Job, Record
from ragaf_exp.sweep.sbatch import options

ARRAY = 1000  # members per array where the cluster does not say how many it takes


@dataclass(frozen=True)
class Task:
    """What SLURM says of a member's job."""

    state: str  # PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT, CANCELLED, ...
    reason: str = ""
    name: str = ""  # as scancel takes it


def available() -> bool:
    return shutil.which("sbatch") is not None


def submit(record: Record, job: Job, request: Cluster) -> Job:
    """Hand the job to SLURM; UserError with sbatch's own words where it refuses."""
    script = record.jobs_folder / f"{job.number}.sh"
    write_text(script, script_text(record, job, request))
    answer = slurm_commands.run("sbatch", "--parsable", str(script))
    if answer.returncode:
        why = _one_line(answer.stderr or answer.stdout).removeprefix("sbatch: error: ")
        raise UserError(f"sbatch: {why or 'refused'}; see conf/cluster/")
    job.job = slurm_commands.submitted(answer.stdout)
    if job.job is None:
        output = _one_line(answer.stdout + " " + answer.stderr)[-300:]
        raise UserError(f"sbatch: no job id in its output ({output}); `squeue --me` shows whether it queued a job")
    record.write(job)
    return job


def script_text(record: Record, job: Job, request: Cluster) -> str:
    """The batch script: the request, the site's setup lines, then the member from the snapshot."""
    several = request.nodes * request.tasks > 1
    command = ["exec", *(["srun", "--kill-on-bad-exit=1"] if several else []), sys.executable, job.snapshot, "member",
               str(record.job_file(job))]  # fmt: skip
    lines = [f"#SBATCH {option}" for option in options(record, job, request)]
    lines += [*request.setup, "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}"]
    lines += [shlex.join(command) + ' "$SLURM_ARRAY_TASK_ID"']
    return "\n".join(["#!/bin/bash", *lines, ""])


def array_size() -> int:
    """How many members one array may have."""
    size = slurm_commands.array_size(slurm_commands.run("scontrol", "show", "config").stdout)
    return ARRAY if size is None else max(1, size - 1)


def tasks(jobs: Iterable[Job]) -> dict[tuple[str, int], Task] | None:
    """(array id, index) -> what SLURM knows; None where it gives no answer now."""
    ids = {job.job for job in jobs if job.job}
    if not ids:
        return {}
    queue = slurm_commands.run("squeue", "-h", "-r", "--me", "-t", "all", "-o", slurm_commands.QUEUE)
    if queue.returncode:
        return None
    account = slurm_commands.run("sacct", "-n", "-X", "-P", "-j", ",".join(sorted(ids)), "-o", slurm_commands.PAST)
    known = {}
    for array, index, state, code in slurm_commands.past(account.stdout) if not account.returncode else ():
        known[array, index] = Task(state, f"exit {code}" if code else "", f"{array}_{index}")
    for array, index, state, reason in slurm_commands.queued(queue.stdout):
        if array in ids:
            known[array, index] = Task(state, reason, f"{array}_{index}")
    return known


def check_ours(record: Record, jobs: Iterable[Job]) -> None:
    """UserError where SLURM has another script than this sweep's under a job's id: a record may be a stranger's."""
    for job in jobs:
        script = record.job_file(job).with_suffix(".sh").resolve()
        known = slurm_commands.described(slurm_commands.run("scontrol", "show", "job", "-o", job.job or "").stdout)
        for other in {facts["Command"] for facts in known if "Command" in facts}:
            if Path(other).resolve() != script:
                raise UserError(f"{record.job_file(job)}: SLURM's job {job.job} runs {other}, not this sweep; "
                                f"scancel {job.job} ends it all the same")  # fmt: skip


def cancel(names: list[str]) -> None:
    """UserError where SLURM refuses."""
    answer = slurm_commands.run("scancel", *names)
    if answer.returncode:
        raise UserError(f"scancel: {_one_line(answer.stderr)}")


def _one_line(output: str) -> str:
    return " ".join(output.split())
