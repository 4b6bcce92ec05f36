"""The record of a sweep, in runs/<name>/.sweep: its members, their configs and every job submitted for them.

members.json         hash -> overrides          jobs/<n>.json   launcher, job id, snapshot, members by index
configs/<hash>.yaml  the resolved config       logs/           output of the jobs
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_json, write_text
from ragaf_exp.core.printable import printable
from ragaf_exp.runs import slurm_commands
from ragaf_exp.sweep.members import Member
from ragaf_exp.sweep.reading import mapping, open_plain

SCHEMA = 1
HASH = re.compile("[0-9a-f]{12}")  # the name of a member and of its run folder


@dataclass
class Job:
    """One submission: an array on SLURM, or one process that starts members on this machine."""

    number: int
    launcher: str  # slurm or local
    members: list[str]  # hashes; a member's position is its array index
    snapshot: str
    job: str | None = None  # SLURM's array id
    submitted: float = field(default_factory=time.time)  # unix seconds
    cancelled: float | None = None
    processes: int = 1  # local launcher: members run at the same time
    threads: int = 1  # local launcher: threads per member


class Record:
    """The record of one sweep. home: the sweep's folder, runs/<name>."""

    def __init__(self, home: Path):
        self.home, self.folder = home, home.resolve() / ".sweep"
        self.configs, self.logs, self.jobs_folder = (self.folder / name for name in ("configs", "logs", "jobs"))

    @property
    def exists(self) -> bool:
        return (self.folder / "members.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Serialise submission, retry and cancellation, so that each sees what the one before it submitted."""
        for folder in (self.folder, self.configs, self.logs, self.jobs_folder):
            if folder.is_symlink():  # it could point outside the sweep
                raise UserError(f"{folder}: a symbolic link; a sweep's record must be a folder, so remove the link")
            folder.mkdir(parents=True, exist_ok=True)
        with open_plain(self.folder / ".lock", os.O_APPEND | os.O_CREAT | os.O_WRONLY) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def members(self) -> dict[str, dict[str, str]]:
        """Overrides of each member by its hash, in the order of submission."""
        if not self.exists:
            return {}
        path = self.folder / "members.json"
        members = read_mapping(path, SCHEMA).get("members")
        if not isinstance(members, dict) or not all(HASH.fullmatch(member) for member in members):
            raise UserError(f"{path}: damaged (members must be named by 12 hex digits); submit the sweep again elsewhere")
        return {member: {printable(key): printable(value) for key, value in mapping(overrides).items()}
                for member, overrides in members.items()}  # fmt: skip

    def add(self, members: Iterable[Member]) -> None:
        """Record members and write their configs. A config that exists already differs at most in output paths."""
        recorded = self.members()
        for member in members:
            recorded[member.hash] = member.overrides
            write_text(self.configs / f"{member.hash}.yaml", OmegaConf.to_yaml(member.cfg))
        write_json(self.folder / "members.json", {"schema": SCHEMA, "members": recorded})

    @contextmanager
    def added(self, members: Iterable[Member]) -> Iterator[None]:
        """Record members that the block queues. If it fails, those that belong to no job are removed again."""
        before = set(self.members())
        self.add(members)
        try:
            yield
        except BaseException:
            queued = {member for job in self.jobs() for member in job.members}
            self._remove(set(self.members()) - before - queued)
            raise

    def _remove(self, members: set[str]) -> None:
        remaining = {member: overrides for member, overrides in self.members().items() if member not in members}
        write_json(self.folder / "members.json", {"schema": SCHEMA, "members": remaining})
        for member in members:
            (self.configs / f"{member}.yaml").unlink(missing_ok=True)
        if not remaining:
            (self.folder / "members.json").unlink()

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        paths = [path for path in self.jobs_folder.glob("*.json") if re.fullmatch("[0-9]{1,9}", path.stem)]
        return [read_job(path) for path in sorted(paths, key=lambda path: int(path.stem))]

    def new_job(self, launcher: str, members: list[str], snapshot: Path, **facts: Any) -> Job:
        """Record a new job.

        Args:
            launcher: The name of its launcher.
            members: The members that it runs.
            snapshot: The folder of its code.
            **facts: Further fields of Job.
        """
        last = max((job.number for job in self.jobs()), default=0)
        job = Job(last + 1, launcher, members, str(snapshot), **facts)
        self.write(job)
        return job

    @contextmanager
    def submitted(self, job: Job) -> Iterator[None]:
        """The block submits a job. If it fails, the job's files are removed."""
        try:
            yield
        except BaseException:
            self.forget(job)
            raise

    def forget(self, job: Job) -> None:
        """Remove the files of a job that could not be submitted."""
        for kind in ("json", "sh", "local"):
            self.job_file(job).with_suffix(f".{kind}").unlink(missing_ok=True)

    def write(self, job: Job) -> None:
        write_json(self.job_file(job), {"schema": SCHEMA, **asdict(job)})

    def job_file(self, job: Job) -> Path:
        return self.jobs_folder / f"{job.number}.json"

    def log(self, job: Job, index: int) -> Path:
        """The file with a member's output. index: the member's position in the job."""
        name = f"{job.job}_{index}" if job.launcher == "slurm" else f"{job.number}_{index}"
        return self.logs / f"{name}.log"


def open_record(path: str | Path) -> Record:
    """The record in a sweep's folder. Raises UserError if there is none."""
    record = Record(Path(path).absolute().resolve())
    if not record.exists:
        raise UserError(f"{path}: no sweep was submitted here; python -m ragaf_exp.sweep submit sweeps/NAME.yaml")
    return record


def read_job(path: Path) -> Job:
    """Read a job's file. Raises UserError if it is missing or damaged."""
    content = read_mapping(path, SCHEMA)
    content.pop("schema", None)
    if isinstance(content.get("job"), str):  # earlier versions recorded the site's banner with the id
        content["job"] = slurm_commands.submitted(content["job"]) or content["job"]
    try:
        job = Job(**content)
    except TypeError as error:
        raise UserError(f"{path}: damaged ({error}); remove it") from error
    if fault := _fault(job, path):
        raise UserError(f"{path}: damaged ({fault}); remove it")
    return job


def _fault(job: Job, path: Path) -> str:
    """The first field whose value no submission writes; empty if all are valid."""
    times = (job.submitted, job.cancelled)
    valid = {
        "number": job.number == int(path.stem), "launcher": job.launcher in ("slurm", "local"),
        "members": isinstance(job.members, list) and all(isinstance(m, str) and HASH.fullmatch(m) for m in job.members),
        "snapshot": isinstance(job.snapshot, str),
        "job": job.job is None or (isinstance(job.job, str) and re.fullmatch("[0-9]{1,12}", job.job)),
        "submitted, cancelled": all(time is None or isinstance(time, int | float) for time in times),
        "processes, threads": all(type(number) is int and number > 0 for number in (job.processes, job.threads)),
    }  # fmt: skip
    return next((f"{name}: not a value that a submission writes" for name, ok in valid.items() if not ok), "")
