"""Process identity (pid, start time, boot id, host) from which another process can test liveness."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ragaf_exp.core import processes
from ragaf_exp.runs import slurm

JOB = re.compile(r"[0-9][\w.+]{0,63}")  # a SLURM job id


@dataclass(frozen=True)
class Owner:
    """A process. As process numbers are reused, its start time and the machine's boot identify it too."""

    host: str
    pid: int
    started: int  # clock ticks from boot to its start, 0 where unknown
    boot: str  # identifies the boot of the machine and the PID namespace; "" where unknown
    job: str | None = None  # SLURM's job id
    cluster: str | None = None  # SLURM's name of the cluster
    restarts: int = 0  # of the job

    @classmethod
    def me(cls) -> Owner:
        """Identify this process."""
        job = slurm.job_id()
        return replace(cls.of(os.getpid()), job=job, cluster=slurm.cluster(), restarts=slurm.restarts())

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Identify a process of this machine."""
        return cls(socket.gethostname(), pid, processes.start_of(pid) or 0, processes.boot())

    @classmethod
    def read(cls, content: Any) -> Owner | None:
        """Parse an owner's file; None if the content is invalid, as after a kill during its write."""
        try:
            owner = cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError):
            return None
        return owner if owner._is_valid() else None

    def _is_valid(self) -> bool:
        """Whether each value has its type, and the job id can't be mistaken for a command's option."""
        numbers = (self.pid, self.started, self.restarts)
        texts = (self.host, self.boot, *(text for text in (self.job, self.cluster) if text is not None))
        valid = all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)
        valid = valid and 0 < self.pid < 2**31
        return valid and (self.job is None or JOB.fullmatch(self.job) is not None)

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values, for JSON."""
        return asdict(self)

    def alive(self) -> bool | None:
        """Whether the process is alive; None if this host can't check, so that only the heartbeat counts."""
        mine = processes.boot()
        if self.boot and self.boot == mine:
            return processes.start_of(self.pid) == self.started
        if not self.boot and not mine and self.host == socket.gethostname():
            return processes.exists(self.pid)
        if self.job and self.cluster == slurm.cluster() and slurm.state(self.job) in slurm.ENDED:
            return False
        return None

    def terminate(self, argument: Path) -> bool:
        """Send SIGTERM to this process if `argument` is on its command line; whether it was sent.

        Owners are read from files, which may be untrusted, and the number may now belong to another process.
        """
        import psutil

        try:
            process = psutil.Process(self.pid)  # checks the start time, so refuses a later process with this number
            arguments = map(os.path.realpath, process.cmdline())
            ours = self.alive() is True and os.path.realpath(argument) in arguments
            if ours:
                process.terminate()
            return ours
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f" (SLURM job {self.job})" if self.job else "")
