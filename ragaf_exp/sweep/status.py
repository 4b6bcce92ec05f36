"""In what state is a member really? Its status.json says what it last knew of itself; whether that still holds, the
heartbeat, the process table and SLURM say."""

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

STALE = 45.0  # seconds without a heartbeat after which a process is not believed to live
ENDED = {  # SLURM's words for jobs that are over, and what they mean here
    "COMPLETED": ("lost", "the job ended without finishing the run"), "FAILED": ("failed", "the job failed"),
    "TIMEOUT": ("failed", "time limit reached"), "OUT_OF_MEMORY": ("failed", "out of memory (SLURM's limit)"),
    "NODE_FAIL": ("lost", "the node failed"), "BOOT_FAIL": ("lost", "the node failed"),
    "PREEMPTED": ("preempted", "preempted"), "CANCELLED": ("cancelled", "cancelled"),
    "DEADLINE": ("failed", "deadline reached"),
}  # fmt: skip
LIVING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "SUSPENDED", "STOPPED")
BAD = ("failed", "lost", "cancelled", "preempted")  # nothing continues these but a retry
OPEN = ("queued", "starting", "running", "stalled", "requeued")
NUMBER = (int, float)
FACTS = {"state": str, "stage": str, "error": str, "host": str, "job": str, "pid": int, "step": int, "steps": int,
         "rate": NUMBER, "updated": NUMBER}  # fmt: skip
MOST = 2**53  # of a number
LONGEST = 1000  # characters of a text


@dataclass
class Row:
    """A member as it is now."""

    hash: str
    path: Path
    overrides: dict[str, str]
    state: str
    error: str = ""
    job: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # of status.json

    @property
    def left(self) -> float | None:
        """Seconds that the present stage still takes, at its present rate."""
        step, steps, rate = (self.facts.get(key) for key in ("step", "steps", "rate"))
        if self.state != "running" or not rate or steps is None or step is None:
            return None
        return max(0.0, (steps - step) / rate)


@dataclass(frozen=True)
class JobEvidence:
    """What is known of a member beside its status.json. None: can't be told."""

    queue: slurm.Task | None = None  # SLURM's word; None where it has none
    lives: bool | None = None  # its process
    waiting: bool | None = False  # a supervisor that is yet to start it
    exit: int | None = None
    cancelled: bool = False


def job_status(status: dict[str, Any], known: JobEvidence, now: float) -> tuple[str, str]:
    """(state, error) of a member. status: its status.json, {} where it never began."""
    said, error = status.get("state"), str(status.get("error") or "")
    if said == "done":
        return "done", ""
    if known.queue is not None and known.queue.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD"):
        return ("requeued" if said in ("preempted", "running") else "queued"), known.queue.reason.removeprefix("None")
    beats = abs(now - _number(status.get("updated"))) <= STALE  # abs: a clock that jumped back is no heartbeat
    if known.lives or (known.queue is not None and known.queue.state in LIVING):
        return _living(said, beats, error)
    return _finished(said, beats, error, known)


def _living(said: str | None, beats: bool, error: str) -> tuple[str, str]:
    if said == "running":
        return ("running", "") if beats else ("stalled", f"no sign of life for {STALE:.0f} s")
    return "starting", error


def _finished(said: str | None, beats: bool, error: str, known: JobEvidence) -> tuple[str, str]:
    """No process is known to live."""
    if known.waiting and not known.cancelled:  # whatever it said at an earlier attempt
        return "queued", ""
    if said in ("failed", "cancelled"):
        return said, error
    if known.cancelled:
        return "cancelled", "cancelled"
    if known.queue is not None and known.queue.state:
        state, why = ENDED.get(known.queue.state, ("lost", known.queue.state))
        return (said if said == "preempted" else state), error or _with(why, known.queue.reason)
    if known.waiting is None and not said:
        return "queued", ""
    if known.exit is not None:
        return ("preempted" if said == "preempted" else "failed"), error or f"the process ended with status {known.exit}"
    if said == "running" and beats and known.lives is None:
        return "running", ""
    if said == "preempted":
        return "preempted", error or "stopped at a checkpoint"
    return "lost", error or ("its process is gone" if said else "never began")


def _with(why: str, reason: str) -> str:
    return f"{why} ({reason})" if reason and reason not in ("exit 0:0", "None") else why


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def rows(record: Record, now: float | None = None) -> tuple[list[Row], list[str]]:
    """Every member as it is, in the order of submission, and notes on what could not be asked."""
    jobs = record.jobs()
    latest: dict[str, tuple[Job, int]] = {member: (job, i) for job in jobs for i, member in enumerate(job.members)}
    queued = slurm.tasks(job for job in jobs if job.launcher == "slurm")
    notes = [] if queued is not None else ["SLURM does not answer: states are by heartbeat alone"]
    local = {job.number: Local(record, job) for job in jobs if job.launcher == "local"}
    now = time.time() if now is None else now
    found = [_row(record, member, overrides, latest.get(member), queued, local, now)
             for member, overrides in record.members().items()]  # fmt: skip
    return found, notes


def _row(record: Record, member: str, overrides: dict, latest: tuple | None, queued, local, now: float) -> Row:
    path = record.home / member
    status = read_status(path)
    known, name, log = _evidence(record, member, status, latest, queued, local)
    state, error = job_status(status, known, now)
    if state in ("failed", "lost") and not status.get("error") and log and (line := last_line(log)):
        error = f"{error}: {line}"
    return Row(member, path, overrides, state, error, name, status)


def _evidence(record: Record, member: str, status: dict, latest: tuple | None, queued, local):
    """(evidence, name of its job, its log)."""
    if latest is None:
        return JobEvidence(lives=lives_here(status)), "", None
    job, index = latest
    cancelled = job.cancelled is not None
    if job.launcher == "slurm":
        task = (queued or {}).get((job.job, index))
        lives = None if task is None else False
        return JobEvidence(task, lives, cancelled=cancelled), f"{job.job}_{index}", record.log(job, index)
    here = local[job.number]
    over = member in here.ended
    known = JobEvidence(None, False if over else here.runs(member), not over and here.supervised, here.ended.get(member),
                     cancelled)  # fmt: skip
    return known, f"local {job.number}_{index}", record.log(job, index)


def read_status(run: Path) -> dict[str, Any]:
    """A run's status.json, perhaps a stranger's: the known keys whose values are of their kind, texts in one line."""
    content = read_loosely(run / "status.json")
    facts: dict[str, Any] = {}
    for key, kind in FACTS.items():
        value = content.get(key)
        right = isinstance(value, kind) and not isinstance(value, bool)
        if right and (kind is str or abs(value) < MOST):  # NaN and infinity are not
            facts[key] = printable(value)[:LONGEST] if kind is str else value
    return facts


def lives_here(status: dict[str, Any]) -> bool | None:
    """Whether the process that status.json names lives; None where it is another machine's, or not named."""
    if status.get("host") != socket.gethostname() or not isinstance(status.get("pid"), int):
        return None
    return alive(status["pid"])
