"""SLURM by its own commands: sbatch, squeue, sacct, scancel. A job is a shell script that can be read and sent again.

Not submitit: its jobs are pickles, whose result files must be where they were left, and it asks sacct alone how a job
ended. Here nothing but the run folder carries state, and SLURM requeues the job under its own id.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from ragaf_exp.config.schema import Cluster
from ragaf_exp.errors import UserError
from ragaf_exp.files import write_text
from ragaf_exp.sweep.record import Job, Record

ARRAY = 1000  # members per array where the cluster does not say how many it takes
PATIENCE = 30  # seconds for an answer


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
    answer = _call(["sbatch", "--parsable", str(script)])
    if answer.returncode:
        record.forget(job)
        raise UserError(f"sbatch: {' '.join(answer.stderr.split())}; see conf/cluster/")
    job.job = answer.stdout.strip().partition(";")[0]
    record.write(job)
    return job


def script_text(record: Record, job: Job, request: Cluster) -> str:
    """The batch script: what is asked for, the site's setup lines, then the member from the snapshot."""
    last = len(job.members) - 1
    several = request.nodes * request.tasks > 1
    asked = {
        "job-name": record.home.name, "array": f"0-{last}" + (f"%{request.parallel}" if request.parallel else ""),
        "output": record.logs / "%A_%a.log", "open-mode": "append", "partition": request.partition,
        "account": request.account, "qos": request.qos, "constraint": request.constraint, "nodes": request.nodes,
        "ntasks-per-node": request.tasks, "cpus-per-task": request.cpus, "mem": f"{request.memory_gb * 1000}M",
        "gpus-per-node": request.gpus, "time": request.minutes,
        "signal": f"{'' if several else 'B:'}USR1@{request.grace}" if request.grace else "",
    }  # fmt: skip
    options = [f"--{key}={value}" for key, value in asked.items() if value] + ["--requeue", *request.extra]
    command = ["exec", *(["srun", "--kill-on-bad-exit=1"] if several else []), sys.executable, job.snapshot, "member",
               str(record.job_file(job))]  # fmt: skip
    lines = [f"#SBATCH {option}" for option in options]
    lines += [*request.setup, "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}"]
    lines += [shlex.join(command) + ' "$SLURM_ARRAY_TASK_ID"']
    return "\n".join(["#!/bin/bash", *lines, ""])


def array_size() -> int:
    """How many members one array may have."""
    answer = _call(["scontrol", "show", "config"])
    found = [line.rpartition("=")[2].strip() for line in answer.stdout.splitlines() if line.startswith("MaxArraySize")]
    return max(1, int(found[0]) - 1) if found and found[0].isdigit() else ARRAY


def tasks(jobs: Iterable[Job]) -> dict[tuple[str, int], Task] | None:
    """(array id, index) -> what SLURM knows; None where it can't be asked just now."""
    ids = {job.job for job in jobs if job.job}
    if not ids:
        return {}
    queue = _call(["squeue", "-h", "-r", "--me", "-t", "all", "-o", "%F|%K|%T|%r|%A"])
    if queue.returncode:
        return None
    past = _call(["sacct", "-n", "-X", "-P", "-j", ",".join(sorted(ids)), "-o", "JobID,State,ExitCode"])
    found = {}
    for line in past.stdout.splitlines() if not past.returncode else []:
        name, state, code = [*line.split("|"), "", ""][:3]
        array, _, index = name.partition("_")
        if index.isdigit():
            found[array, int(index)] = Task(state.split()[0] if state else "", f"exit {code}", name)
    for line in queue.stdout.splitlines():
        array, index, state, reason, _ = line.split("|", 4)
        if array in ids and index.isdigit():
            found[array, int(index)] = Task(state, reason, f"{array}_{index}")
    return found


def cancel(names: list[str]) -> None:
    """UserError where SLURM refuses."""
    answer = _call(["scancel", *names])
    if answer.returncode:
        raise UserError(f"scancel: {' '.join(answer.stderr.split())}")


def _call(command: list[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: not found; is SLURM on this machine?")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"{command[0]}: no answer in {PATIENCE} s")


