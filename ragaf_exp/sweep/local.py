"""Run members on this machine, a few at a time, under a supervisor process that outlives the terminal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_json
from ragaf_exp.runs.owner import Owner
from ragaf_exp.sweep.ledger import Job, Record
from ragaf_exp.sweep.reading import last_line, mapping, open_plain, read_loosely

GRACE = 30  # seconds that cancelled members have to save a checkpoint
POLL = 0.1
LOG = os.O_APPEND | os.O_CREAT | os.O_WRONLY


def submit(record: Record, job: Job) -> None:
    """Start the supervisor in a new session, so that closing the terminal does not end it.

    Raises UserError with its last line of output if it ends at once.
    """
    state_file(record, job).unlink(missing_ok=True)  # left by an earlier job with this number
    path = record.logs / f"{job.number}.log"
    with open_plain(path, LOG) as log:
        process = subprocess.Popen([sys.executable, job.snapshot, "supervise", str(record.job_file(job))],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True)  # fmt: skip
    for _ in range(int(10 / POLL)):  # until its state can be read
        if state_file(record, job).exists():
            return
        if process.poll():
            raise UserError(f"{path}: the process that starts the members ended at once: {last_line(path)}")
        time.sleep(POLL)


def state_file(record: Record, job: Job) -> Path:
    return record.jobs_folder / f"{job.number}.local"


class Supervisor:
    """Starts a job's members, at most `processes` at a time, and records their exit codes."""

    def __init__(self, record: Record, job: Job):
        self.record, self.job = record, job
        self.running: dict[int, subprocess.Popen] = {}
        self.ended: dict[str, int] = {}
        self.stopped = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        waiting = list(range(len(self.job.members)))
        self._record_state()
        while self.running or (waiting and not self.stopped):
            while waiting and not self.stopped and len(self.running) < self.job.processes:
                self._start(waiting.pop(0))
                self._record_state()
            self._reap()
            time.sleep(POLL)
        self._record_state()

    def _start(self, index: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(self.job.threads)}
        command = [sys.executable, self.job.snapshot, "member", str(self.record.job_file(self.job)), str(index)]
        with open_plain(self.record.log(self.job, index), LOG) as log:
            self.running[index] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                   stderr=subprocess.STDOUT, env=environment)  # fmt: skip

    def _reap(self) -> None:
        finished = [index for index, process in self.running.items() if process.poll() is not None]
        for index in finished:
            self.ended[self.job.members[index]] = self.running.pop(index).returncode
        if finished:
            self._record_state()

    def _record_state(self) -> None:
        members = self.job.members
        running = {members[i]: Owner.of(process.pid).as_dict() for i, process in self.running.items()}
        me = Owner.of(os.getpid()).as_dict()
        write_json(state_file(self.record, self.job), {"supervisor": me, "ended": self.ended, "running": running})

    def _stop(self, *_: Any) -> None:
        """Start no further member; send the running ones SIGTERM, and SIGKILL after GRACE seconds."""
        self.stopped = True
        for process in list(self.running.values()):
            process.terminate()
        signal.signal(signal.SIGALRM, lambda *_: [process.kill() for process in list(self.running.values())])
        signal.alarm(GRACE)


class Local:
    """The recorded state of a local job, and whether its processes are alive."""

    def __init__(self, record: Record, job: Job):
        content = read_loosely(state_file(record, job))
        self.argument = record.job_file(job)  # on the command line of the supervisor and its members
        self.supervisor = Owner.read(content.get("supervisor"))
        self.running = {member: owner for member, fields in mapping(content.get("running")).items()
                        if (owner := Owner.read(fields)) is not None}  # fmt: skip
        self.ended = {member: code for member, code in mapping(content.get("ended")).items() if isinstance(code, int)}

    @property
    def supervised(self) -> bool | None:
        """Whether waiting members will be started; None if only another machine knows."""
        return False if self.supervisor is None else _is_alive(self.supervisor)

    def runs(self, member: str) -> bool | None:
        """Whether a member's process is alive; None if only another machine knows."""
        owner = self.running.get(member)
        return False if owner is None else _is_alive(owner)

    def cancel(self, members: list[str]) -> list[str]:
        """Terminate these members, and the supervisor with them.

        Returns the members that may still be alive because their processes, for example on another machine, could not be
        identified as this job's.
        """
        if self.supervisor is not None and self.supervisor.terminate(self.argument):
            return []
        if self.supervised is not False:
            return members
        alive = [member for member in members if self.runs(member) is not False]
        return [member for member in alive if not self.running[member].terminate(self.argument)]


def _is_alive(owner: Owner) -> bool | None:
    """Whether a process is alive; on this host, none survives from an earlier boot."""
    alive = owner.alive()
    return False if alive is None and owner.host == socket.gethostname() else alive
