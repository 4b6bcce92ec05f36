"""The actual state of a member: its status.json, checked against the heartbeat, the process table and SLURM."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragaf_exp.core.printable import printable
from ragaf_exp.core.processes import alive
from ragaf_exp.sweep import slurm
from ragaf_exp.sweep.ledger import Job, Record
from ragaf_exp.sweep.local import Local
from ragaf_exp.sweep.reading import last_line, read_loosely

STALE = 45.0  # seconds without a heartbeat after which a process counts as dead
ENDED = {  # SLURM's states of ended jobs -> (state, error) of a member
    "COMPLETED": ("lost", "the job ended without finishing the run"), "FAILED": ("failed", "the job failed"),
    "TIMEOUT": ("failed", "time limit reached"), "OUT_OF_MEMORY": ("failed", "out of memory (SLURM's limit)"),
    "NODE_FAIL": ("lost", "the node failed"), "BOOT_FAIL": ("lost", "the node failed"),
    "PREEMPTED": ("preempted", "preempted"), "CANCELLED": ("cancelled", "cancelled"),
    "DEADLINE": ("failed", "deadline reached"),
}  # fmt: skip
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD")
LIVING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED")
BAD = ("failed", "lost", "cancelled", "preempted")  # only a retry resumes these
OPEN = ("queued", "starting", "running", "stalled", "requeued")
NUMBER = (int, float)
FACTS = {"state": str, "stage": str, "error": str, "host": str, "job": str, "pid": int, "step": int, "steps": int,
         "rate": NUMBER, "updated": NUMBER}  # fmt: skip
MOST = 2**53  # the largest number that is read
LONGEST = 1000  # characters of a text that are read


@dataclass
class Row:
    """The current state of a member."""

    hash: str
    path: Path
    overrides: dict[str, str]
    state: str
    error: str = ""
    job: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # of status.json

    @property
    def left(self) -> float | None:
        """Estimated seconds until the current stage ends, at its current rate."""
        step, steps, rate = (self.facts.get(key) for key in ("step", "steps", "rate"))
        if self.state != "running" or not rate or steps is None or step is None:
            return None
        return max(0.0, (steps - step) / rate)


@dataclass(frozen=True)
class JobEvidence:
    """Evidence for the state of a member, other than its status.json. None: unknown."""

    queue: slurm.Task | None = None  # SLURM's status; None if it has none
    lives: bool | None = None  # whether its process is alive
    waiting: bool | None = False  # whether a supervisor will still start it
    exit: int | None = None
    cancelled: bool = False


def job_status(status: dict[str, Any], evidence: JobEvidence, now: float) -> tuple[str, str]:
    """The state of a member.

    Args:
        status: The member's status.json, {} if it never started.
        evidence: What the process table, the supervisor and SLURM report.
        now: The current time, in unix seconds.

    Returns:
        (state, error); error is empty for a member that is well.
    """
    recorded, error = status.get("state"), str(status.get("error") or "")
    if recorded == "done":
        return "done", ""
    task = evidence.queue
    if task is not None and task.state in WAITING:
        return ("requeued" if recorded in ("preempted", "running") else "queued"), task.reason.removeprefix("None")
    beats = abs(now - _number(status.get("updated"))) <= STALE  # abs: a clock that jumped back is not a heartbeat
    if evidence.lives or (task is not None and task.state in LIVING):
        return _living(recorded, beats, error)
    return _finished(recorded, beats, error, evidence)


def _living(recorded: str | None, beats: bool, error: str) -> tuple[str, str]:
    if recorded == "running":
        return ("running", "") if beats else ("stalled", f"no heartbeat for {STALE:.0f} s")
    return "starting", error


def _finished(recorded: str | None, beats: bool, error: str, evidence: JobEvidence) -> tuple[str, str]:
    """The state of a member without a process that is known to be alive."""
    if evidence.waiting and not evidence.cancelled:  # whatever an earlier attempt recorded
        return "queued", ""
    if recorded in ("failed", "cancelled"):
        return recorded, error
    if evidence.cancelled:
        return "cancelled", "cancelled"
    if evidence.queue is not None and evidence.queue.state:
        state, reason = ENDED.get(evidence.queue.state, ("lost", evidence.queue.state))
        return (recorded if recorded == "preempted" else state), error or _with_reason(reason, evidence.queue.reason)
    if evidence.waiting is None and not recorded:
        return "queued", ""
    if evidence.exit is not None:
        state = "preempted" if recorded == "preempted" else "failed"
        return state, error or f"the process ended with status {evidence.exit}"
    if recorded == "running" and beats and evidence.lives is None:
        return "running", ""
    if recorded == "preempted":
        return "preempted", error or "stopped at a checkpoint"
    return "lost", error or ("its process has disappeared" if recorded else "never started")


def _with_reason(error: str, reason: str) -> str:
    return f"{error} ({reason})" if reason and reason not in ("exit 0:0", "None") else error


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def rows(record: Record, now: float | None = None) -> tuple[list[Row], list[str]]:
    """The current state of every member, in order of submission, and notes on sources that did not answer."""
    jobs = record.jobs()
    latest: dict[str, tuple[Job, int]] = {member: (job, i) for job in jobs for i, member in enumerate(job.members)}
    queued = slurm.tasks(job for job in jobs if job.launcher == "slurm")
    notes = [] if queued is not None else ["SLURM does not answer: states rely on heartbeats alone"]
    local = {job.number: Local(record, job) for job in jobs if job.launcher == "local"}
    now = time.time() if now is None else now
    members = [_row(record, member, overrides, latest.get(member), queued, local, now)
             for member, overrides in record.members().items()]  # fmt: skip
    return members, notes


def _row(record: Record, member: str, overrides: dict, latest: tuple | None, queued, local, now: float) -> Row:
    path = record.home / member
    status = read_status(path)
    evidence, name, log = _evidence(record, member, status, latest, queued, local)
    state, error = job_status(status, evidence, now)
    if state in ("failed", "lost") and not status.get("error") and log and (line := last_line(log)):
        error = f"{error}: {line}"
    return Row(member, path, overrides, state, error, name, status)


def _evidence(record: Record, member: str, status: dict, latest: tuple | None, queued, local):
    """(evidence, name of the job, path of its log)."""
    if latest is None:
        return JobEvidence(lives=lives_here(status)), "", None
    job, index = latest
    cancelled = job.cancelled is not None
    if job.launcher == "slurm":
        task = (queued or {}).get((job.job, index))
        lives = None if task is None else False
        return JobEvidence(task, lives, cancelled=cancelled), f"{job.job}_{index}", record.log(job, index)
    current = local[job.number]
    ended = member in current.ended
    evidence = JobEvidence(None, False if ended else current.runs(member), not ended and current.supervised,
                           current.ended.get(member), cancelled)  # fmt: skip
    return evidence, f"local {job.number}_{index}", record.log(job, index)


def read_status(run: Path) -> dict[str, Any]:
    """Read a run's untrusted status.json: known keys with values of the right type, texts as one printable line."""
    content = read_loosely(run / "status.json")
    facts: dict[str, Any] = {}
    for key, kind in FACTS.items():
        value = content.get(key)
        valid = isinstance(value, kind) and not isinstance(value, bool)
        if valid and (kind is str or abs(value) < MOST):  # excludes NaN and infinity
            facts[key] = printable(value)[:LONGEST] if kind is str else value
    return facts


def lives_here(status: dict[str, Any]) -> bool | None:
    """Whether the process in status.json is alive; None if it is missing or on another machine."""
    if status.get("host") != socket.gethostname() or not isinstance(status.get("pid"), int):
        return None
    return alive(status["pid"])
