"""What SLURM says of a job, from its environment and its commands."""

from __future__ import annotations

import logging
import os
import subprocess
import time

from ragaf_exp.runs import slurm_commands

log = logging.getLogger(__name__)
ENDED = frozenset("BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT UNKNOWN".split())
REQUEUE_TRIES = 20
PAUSE_S = 1.0  # between them: slurmctld may be restarting
ANSWER_S = 10.0  # for an answer: a job that is ending has little time


def job_id() -> str | None:
    return os.environ.get("SLURM_JOB_ID")


def cluster() -> str | None:
    return os.environ.get("SLURM_CLUSTER_NAME")


def restarts() -> int:
    """How often the job was requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def is_first_task() -> bool:
    """Whether this is the first of a job step's processes, or the only one."""
    return int(os.environ.get("SLURM_PROCID", 0)) == 0


def name() -> str | None:
    """Of this very job. An array's number is also that of one of its tasks, and would mean all of them."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else job_id()


def state(job: str) -> str | None:
    """The job's state by `scontrol show job`: RUNNING, COMPLETING, ...; UNKNOWN: no such job; None: nobody could say."""
    answer = _ask("scontrol", "show", "job", "-o", job)
    if answer is None:
        return None
    if answer.returncode:
        return "UNKNOWN" if "Invalid job id" in answer.stderr else None
    return _facts(answer.stdout, job).get("JobState")


def cancelled(job: str) -> bool:
    """Whether this process's own job, which was sent SIGTERM, was so by scancel.

    SLURM calls it COMPLETING whatever ends it: it is cancelled where it was not queued again, not preempted, and had
    time left. False too where nobody could say.
    """
    answer = _ask("scontrol", "show", "job", "-o", job)
    facts = _facts(answer.stdout, job) if answer is not None and not answer.returncode else {}
    if facts.get("JobState") != "COMPLETING":
        return facts.get("JobState") == "CANCELLED"
    requeued = facts.get("Restarts") != str(restarts())
    preempted = facts.get("PreemptTime", "None") != "None"
    had_time = _seconds(facts.get("RunTime", "unknown")) < _seconds(facts.get("TimeLimit", "unknown"))
    return not requeued and not preempted and had_time


def limit(job: str) -> str:
    """A job's time limit in SLURM's own words."""
    answer = _ask("scontrol", "show", "job", "-o", job)
    facts = _facts(answer.stdout, job) if answer is not None and not answer.returncode else {}
    return facts.get("TimeLimit", "unknown")


def _facts(output: str, job: str) -> dict[str, str]:
    """Of the job among those that `scontrol show job -o` printed; of an array's number these are all its tasks."""
    jobs = slurm_commands.described(output)
    return next((found for found in jobs if len(jobs) == 1 or found.get("JobId") == job), {})


def _seconds(told: str) -> float:
    """D-HH:MM:SS as seconds; infinite where there is no such time (UNLIMITED)."""
    days, _, rest = told.rpartition("-")
    if not rest.replace(":", "").isdigit():
        return float("inf")
    hours, minutes, seconds = map(int, rest.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def requeue(job: str) -> bool:
    """Put the running job back into the queue; SLURM then ends its processes. False where SLURM would not."""
    for _ in range(REQUEUE_TRIES):
        answer = _ask("scontrol", "requeue", job)
        if answer is None or not answer.returncode:
            return answer is not None
        if "Unable to contact" not in answer.stderr and "timed out" not in answer.stderr:
            log.warning("SLURM would not requeue job %s: %s", job, " ".join(answer.stderr.split()))
            return False
        time.sleep(PAUSE_S)
    return False


def _ask(*command: str) -> subprocess.CompletedProcess | None:
    """None where there is no such command, or no answer in time."""
    answer = slurm_commands.run(*command, patience=ANSWER_S)
    return None if answer.returncode in (slurm_commands.NOT_RUN, slurm_commands.TIMED_OUT) else answer
