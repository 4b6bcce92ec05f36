"""Submission, retry and cancellation of members."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import yaml

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Cluster
from ragaf_exp.core.errors import UserError
from ragaf_exp.runs.flat_config import LOADER
from ragaf_exp.sweep import local, slurm, snapshot
from ragaf_exp.sweep.ledger import Job, Record
from ragaf_exp.sweep.members import Member
from ragaf_exp.sweep.reading import MOST, open_plain
from ragaf_exp.sweep.status import BAD, Row, rows

LAUNCHERS = ("slurm", "local")


def launcher_of(name: str) -> str:
    """The launcher to use; without a name, slurm if this machine has sbatch."""
    if not name:
        return "slurm" if slurm.available() else "local"
    if name not in LAUNCHERS:
        raise UserError(f"launcher={name}: must be {' or '.join(LAUNCHERS)}")
    if name == "slurm" and not slurm.available():
        raise UserError("launcher=slurm: there is no sbatch on this machine; use launcher=local")
    return name


def submit(members: list[Member], launcher: str, processes: int) -> tuple[Record, list[Job]]:
    """Queue the members that are neither done nor active. A member that was interrupted resumes from its run folder.

    Args:
        members: The members of the sweep.
        launcher: slurm or local.
        processes: The number of members that run at the same time; local only.

    Returns:
        The sweep's record and the jobs that were submitted.

    Raises:
        UserError: If the launcher rejects a job.
    """
    record = Record(members[0].home)
    code = snapshot.take(Path(members[0].cfg.runs))
    with record.locked(), record.added(members):
        idle = {row.hash for row in rows(record)[0] if row.state in BAD}
        wanted = [member.hash for member in members if member.hash in idle]
        return record, _queue(record, wanted, code, launcher, processes)


def retry(record: Record, launcher: str, processes: int, fresh: bool, recorded: bool = False) -> list[Job]:
    """Queue failed, lost, preempted and cancelled members again, with their recorded configs.

    Args:
        record: The sweep's record.
        launcher: slurm or local.
        processes: The number of members that run at the same time; local only.
        fresh: Run the current code instead of the snapshot of the first submission.
        recorded: Trust recorded setup lines and sbatch options that differ from this checkout's.

    Returns:
        The jobs that were submitted.

    Raises:
        UserError: If the recorded code, config or setup must not be run.
    """
    with record.locked():
        idle = [row.hash for row in rows(record)[0] if row.state in BAD]
        if not idle:
            return []
        if launcher == "slurm" and not recorded:
            _check_setup(record, idle)
        if fresh:
            return _queue(record, idle, snapshot.take(record.home.parent), launcher, processes)
        jobs = []
        for code, members in _by_code(record, idle):
            jobs += _queue(record, members, code, launcher, processes)
        return jobs


def _by_code(record: Record, idle: list[str]) -> list[tuple[Path, list[str]]]:
    """Members grouped by their last snapshot, or by a new one of the current code if that is missing."""
    last = {member: job.snapshot for job in record.jobs() for member in job.members}
    runs = record.home.parent
    groups: dict[str, list[str]] = {}
    for member in idle:
        groups.setdefault(last.get(member, ""), []).append(member)
    return [(snapshot.find(runs, name) or snapshot.take(runs), members) for name, members in groups.items()]


def _queue(record: Record, wanted: list[str], code: Path, launcher: str, processes: int) -> list[Job]:
    if not wanted:
        return []
    if launcher == "local":
        threads = max(1, (os.cpu_count() or 1) // processes)
        job = record.new_job("local", wanted, code, processes=processes, threads=threads)
        with record.submitted(job):
            local.submit(record, job)
        return [job]
    jobs: list[Job] = []
    try:
        for request, members in _arrays(record, wanted):
            job = record.new_job("slurm", members, code)
            with record.submitted(job):
                slurm.submit(record, job, request)
            jobs.append(job)
    except UserError as error:
        if jobs:
            raise UserError(f"{error}; before that, {summary_of(jobs, len(wanted)).partition(';')[0]}") from error
        raise
    return jobs


def _arrays(record: Record, wanted: list[str]) -> list[tuple[Cluster, list[str]]]:
    """The members of each array: those with the same request, up to the cluster's limit."""
    size = slurm.array_size()
    return [(request, members[begin : begin + size]) for request, members in _by_request(record, wanted)
            for begin in range(0, len(members), size)]  # fmt: skip


def _by_request(record: Record, wanted: list[str]) -> list[tuple[Cluster, list[str]]]:
    """Members with the same request share an array."""
    groups: dict[str, tuple[Cluster, list[str]]] = {}
    for member in wanted:
        request = _request(record.configs / f"{member}.yaml")
        groups.setdefault(str(asdict(request)), (request, []))[1].append(member)
    return list(groups.values())


def _request(path: Path) -> Cluster:
    """The request in a member's recorded config. Raises UserError if it is damaged."""
    try:
        with open_plain(path) as file:
            request = Cluster(**yaml.load(file.read(MOST).decode(), LOADER)["cluster"])
        valid = all(type(value) is type(getattr(Cluster(), key)) for key, value in asdict(request).items())
        if valid and all(isinstance(text, str) for text in (*request.setup, *request.extra)):
            return request
    except (KeyError, TypeError, ValueError, yaml.YAMLError, RecursionError):
        pass
    raise UserError(f"{path}: damaged (its group cluster is missing or invalid); submit the sweep again")


def _check_setup(record: Record, members: list[str]) -> None:
    """Raise UserError if a recorded shell line differs from this checkout's: the record is not trusted."""
    for request, _ in _by_request(record, members):
        lines = [*request.setup, *request.extra]
        if lines and lines != [*(here := compose_config([]).cluster).setup, *here.extra]:
            raise UserError(f"{record.home}: its jobs would run {'; '.join(lines)}, which is not conf/cluster/site.yaml's; "
                            "add setup=recorded if these are your lines")  # fmt: skip


def cancel(record: Record) -> list[Row]:
    """Cancel all members that wait or run, and return them. Finished members are not changed.

    Raises UserError if recorded processes or SLURM jobs cannot be identified as this sweep's; these continue.
    """
    with record.locked():
        latest = {member: job for job in record.jobs() for member in job.members}
        active = [row for row in rows(record)[0] if row.state not in (*BAD, "done")]
        affected = {latest[row.hash].number: latest[row.hash] for row in active if row.hash in latest}
        arrays = [job for job in affected.values() if job.launcher == "slurm"]
        slurm.check_ours(record, arrays)
        for job in affected.values():
            job.cancelled = time.time()
            record.write(job)
        names = [row.job for row in active if latest.get(row.hash) in arrays]
        for begin in range(0, len(names), 500):
            slurm.cancel(names[begin : begin + 500])
        remaining = [
            member
            for job in affected.values()
            if job.launcher == "local"
            for member in local.Local(record, job).cancel([row.hash for row in active if latest.get(row.hash) is job])
        ]
        if remaining:
            raise UserError(f"{record.home}: {len(remaining)} members continue ({remaining[0]}, ...): their processes are "
                            "on another machine, or not certain to be this sweep's; cancel them there")  # fmt: skip
        return active


def summary_of(jobs: list[Job], total: int) -> str:
    """A one-line summary of a submission."""
    queued = sum(len(job.members) for job in jobs)
    if not queued:
        return f"nothing to queue: all {total} members are done or active"
    where = [f"SLURM array {job.job}" if job.launcher == "slurm" else f"{job.processes} at a time here" for job in jobs]
    return f"{queued} of {total} members queued ({', '.join(where)}); the others are done or active"
