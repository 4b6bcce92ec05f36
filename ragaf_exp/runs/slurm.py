"""State of SLURM jobs, from the environment and SLURM's commands."""

from __future__ import annotations

import logging
import os
import subprocess
import time

from ragaf_exp.runs import slurm_commands

log = logging.getLogger(__name__)
ENDED = frozenset("BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED TIMEOUT UNKNOWN".split())
REQUEUE_TRIES = 20
PAUSE_S = 1.0  # between tries: slurmctld may be restarting
ANSWER_S = 10.0  # timeout of a command: a job that is ending has little time


def job_id() -> str | None:
    """Job id of this process; None outside a job. For an array, the id of its task's own job."""
    return os.environ.get("SLURM_JOB_ID")


def cluster() -> str | None:
    """Name of the cluster; None outside a job."""
    return os.environ.get("SLURM_CLUSTER_NAME")


def restarts() -> int:
    """Number of times that the job was requeued."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def is_first_task() -> bool:
    """Whether this is the first, or only, process of a job step."""
    return int(os.environ.get("SLURM_PROCID", 0)) == 0


def name() -> str | None:
    """Unambiguous name of this job: an array's id is also the job id of one of its tasks, and would mean all of them."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else job_id()


def state(job: str) -> str | None:
    """State of a job by `scontrol show job`: RUNNING, COMPLETING, ...; UNKNOWN: no such job; None: no answer."""
    answer = _ask("scontrol", "show", "job", "-o", job)
    if answer is None:
        return None
    if answer.returncode:
        return "UNKNOWN" if "Invalid job id" in answer.stderr else None
    return _facts(answer.stdout, job).get("JobState")


def cancelled(job: str) -> bool:
    """Whether the SIGTERM that this process's job received came from scancel; False if SLURM does not answer.

    SLURM reports COMPLETING for every ending. The job counts as cancelled if it was not requeued, not preempted, and
    had time left.
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
    """Return a job's time limit as SLURM prints it."""
    answer = _ask("scontrol", "show", "job", "-o", job)
    facts = _facts(answer.stdout, job) if answer is not None and not answer.returncode else {}
    return facts.get("TimeLimit", "unknown")


def _facts(output: str, job: str) -> dict[str, str]:
    """Select the job from the output of `scontrol show job -o`, which for an array's id lists all its tasks."""
    jobs = slurm_commands.described(output)
    return next((facts for facts in jobs if len(jobs) == 1 or facts.get("JobId") == job), {})


def _seconds(duration: str) -> float:
    """Convert D-HH:MM:SS to seconds; infinite for anything else, such as UNLIMITED."""
    days, _, rest = duration.rpartition("-")
    if not rest.replace(":", "").isdigit():
        return float("inf")
    hours, minutes, seconds = map(int, rest.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def requeue(job: str) -> bool:
    """Requeue the running job, whose processes SLURM then ends; whether SLURM accepted."""
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
    """Run a command; None if it does not exist or does not answer in time."""
    answer = slurm_commands.run(*command, patience=ANSWER_S)
    return None if answer.returncode in (slurm_commands.NOT_RUN, slurm_commands.TIMED_OUT) else answer
