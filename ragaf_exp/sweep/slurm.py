"""Run members as SLURM jobs through sbatch, squeue, sacct and scancel. A job is a plain shell script.

Submitit is not used because its jobs are pickles with result files at fixed paths, and it learns only from sacct how a job
ended. Here the run folder carries all state, and SLURM requeues a job under the same id.
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

ARRAY = 1000  # members per array if the cluster does not report MaxArraySize


@dataclass(frozen=True)
class Task:
    """SLURM's status of a member's job."""

    state: str  # PENDING, RUNNING, COMPLETED, FAILED, TIMEOUT, CANCELLED, ...
    reason: str = ""
    name: str = ""  # job id for scancel


def available() -> bool:
    return shutil.which("sbatch") is not None


def submit(record: Record, job: Job, request: Cluster) -> Job:
    """Submit the job to SLURM.

    Args:
        record: The sweep's record, in which the job's id is stored.
        job: The job to submit.
        request: The resources of each member.

    Returns:
        The job with SLURM's array id.

    Raises:
        UserError: If sbatch rejects the job, with its message, or prints no job id.
    """
    script = record.jobs_folder / f"{job.number}.sh"
    write_text(script, script_text(record, job, request))
    answer = slurm_commands.run("sbatch", "--parsable", str(script))
    if answer.returncode:
        reason = _one_line(answer.stderr or answer.stdout).removeprefix("sbatch: error: ")
        raise UserError(f"sbatch: {reason or 'rejected'}; see conf/cluster/")
    job.job = slurm_commands.submitted(answer.stdout)
    if job.job is None:
        output = _one_line(answer.stdout + " " + answer.stderr)[-300:]
        raise UserError(f"sbatch: no job id in its output ({output}); `squeue --me` shows whether it queued a job")
    record.write(job)
    return job


def script_text(record: Record, job: Job, request: Cluster) -> str:
    """The batch script of a job.

    Args:
        record: The sweep's record.
        job: The job, whose members become an array.
        request: The resources of each member, and the site's setup lines.

    Returns:
        A bash script: the request, the setup lines, then the snapshot's command for one member.
    """
    distributed = request.nodes * request.tasks > 1
    command = ["exec", *(["srun", "--kill-on-bad-exit=1"] if distributed else []), sys.executable, job.snapshot, "member",
               str(record.job_file(job))]  # fmt: skip
    lines = [f"#SBATCH {option}" for option in options(record, job, request)]
    lines += [*request.setup, "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}"]
    lines += [shlex.join(command) + ' "$SLURM_ARRAY_TASK_ID"']
    return "\n".join(["#!/bin/bash", *lines, ""])


def array_size() -> int:
    """The largest number of members in one array."""
    size = slurm_commands.array_size(slurm_commands.run("scontrol", "show", "config").stdout)
    return ARRAY if size is None else max(1, size - 1)


def tasks(jobs: Iterable[Job]) -> dict[tuple[str, int], Task] | None:
    """(array id, index) -> SLURM's status; None if SLURM does not answer."""
    ids = {job.job for job in jobs if job.job}
    if not ids:
        return {}
    queue = slurm_commands.run("squeue", "-h", "-r", "--me", "-t", "all", "-o", slurm_commands.QUEUE)
    if queue.returncode:
        return None
    account = slurm_commands.run("sacct", "-n", "-X", "-P", "-j", ",".join(sorted(ids)), "-o", slurm_commands.PAST)
    status = {}
    for array, index, state, code in slurm_commands.past(account.stdout) if not account.returncode else ():
        status[array, index] = Task(state, f"exit {code}" if code else "", f"{array}_{index}")
    for array, index, state, reason in slurm_commands.queued(queue.stdout):
        if array in ids:
            status[array, index] = Task(state, reason, f"{array}_{index}")
    return status


def check_ours(record: Record, jobs: Iterable[Job]) -> None:
    """Raise UserError if SLURM runs another script under a recorded job id: the record is not trusted."""
    for job in jobs:
        script = record.job_file(job).with_suffix(".sh").resolve()
        described = slurm_commands.described(slurm_commands.run("scontrol", "show", "job", "-o", job.job or "").stdout)
        for other in {facts["Command"] for facts in described if "Command" in facts}:
            if Path(other).resolve() != script:
                raise UserError(f"{record.job_file(job)}: SLURM's job {job.job} runs {other}, not this sweep; "
                                f"scancel {job.job} ends it anyway")  # fmt: skip


def cancel(names: list[str]) -> None:
    """Cancel jobs. Raises UserError if scancel fails."""
    answer = slurm_commands.run("scancel", *names)
    if answer.returncode:
        raise UserError(f"scancel: {_one_line(answer.stderr)}")


def _one_line(output: str) -> str:
    return " ".join(output.split())
