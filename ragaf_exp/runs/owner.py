"""Who a process is, told so that another process, perhaps on another host, can say whether it still lives."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ragaf_exp.core import processes
from ragaf_exp.runs import slurm

JOB = re.compile(r"[0-9][\w.+]{0,63}")  # SLURM's name for a job


@dataclass(frozen=True)
class Owner:
    """A process. Its number alone is reused, so its start and the machine's boot are told with it."""

    host: str
    pid: int
    started: int  # clock ticks from boot to its start, 0 where the system doesn't tell
    boot: str  # of this boot of the machine, and of the container's own process numbers; "" where unknown
    job: str | None = None  # SLURM's
    cluster: str | None = None
    restarts: int = 0  # of the job

    @classmethod
    def me(cls) -> Owner:
        job = slurm.job_id()
        return replace(cls.of(os.getpid()), job=job, cluster=slurm.cluster(), restarts=slurm.restarts())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """A process of this machine."""
        return cls(socket.gethostname(), pid, processes.start_of(pid) or 0, processes.boot())

    @classmethod
    def read(cls, content: Any) -> Owner | None:
        """None where the content is not an owner's, as after a kill in the middle of its write."""
        try:
            found = cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError):
            return None
        return found if found._fits() else None

    def _fits(self) -> bool:
        """Whether each value is of its type, and the job's number is no option of a command."""
        numbers = (self.pid, self.started, self.restarts)
        texts = (self.host, self.boot, *(text for text in (self.job, self.cluster) if text is not None))
        sound = all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)
        sound = sound and 0 < self.pid < 2**31
        return sound and (self.job is None or JOB.fullmatch(self.job) is not None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def alive(self) -> bool | None:
        """None where it can't be told from here: then only its heartbeat says."""
        mine = processes.boot()
        if self.boot and self.boot == mine:
            return processes.start_of(self.pid) == self.started
        if not self.boot and not mine and self.host == socket.gethostname():
            return processes.exists(self.pid)
        if self.job and self.cluster == slurm.cluster() and slurm.state(self.job) in slurm.ENDED:
            return False
        return None

    def terminate(self, argument: Path) -> bool:
        """Send SIGTERM to this very process, if `argument` is on its command line; whether it was sent.

        Owners are read from files, perhaps a stranger's: a number that is now another process's must not end that one.
        """
        import psutil

        try:
            process = psutil.Process(self.pid)  # which remembers the start, and refuses a later process of the number
            arguments = map(os.path.realpath, process.cmdline())
            ours = self.alive() is True and os.path.realpath(argument) in arguments
            if ours:
                process.terminate()
            return ours
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (SLURM job {self.job})" if self.job else "")
