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
    """slurm where there is one, unless told otherwise."""
    if not name:
        return "slurm" if slurm.available() else "local"
    if name not in LAUNCHERS:
        raise UserError(f"launcher={name}: must be {' or '.join(LAUNCHERS)}")
    if name == "slurm" and not slurm.available():
        raise UserError("launcher=slurm: there is no sbatch on this machine; take launcher=local")
    return name


def submit(members: list[Member], launcher: str, processes: int) -> tuple[Record, list[Job]]:
    """Queue the members that are neither done nor under way; a member always finds its own run folder again."""
    record = Record(members[0].home)
    code = snapshot.take(Path(members[0].cfg.runs))
    with record.locked(), record.added(members):
        idle = {row.hash for row in rows(record)[0] if row.state in BAD}
        wanted = [member.hash for member in members if member.hash in idle]
        return record, _queue(record, wanted, code, launcher, processes)


def retry(record: Record, launcher: str, processes: int, fresh: bool, recorded: bool = False) -> list[Job]:
    """Queue again what failed, was lost or cancelled, by its recorded config.

    Args:
        record: Of the sweep.
        launcher: slurm or local.
        processes: Members at a time; local only.
        fresh: Run the code as it is now, instead of that of the first submission.
        recorded: Trust recorded setup lines and options of sbatch that are not this checkout's.

    Returns:
        The jobs that were submitted.

    Raises:
        UserError: Where the recorded code, config or setup is not one that may be run.
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
    """Members by the snapshot that they were last queued with; by one of today's code where that is gone."""
    last = {member: job.snapshot for job in record.jobs() for member in job.members}
    runs = record.home.parent
    groups: dict[str, list[str]] = {}
    for member in idle:
        groups.setdefault(last.get(member, ""), []).append(member)
    return [(snapshot.known(runs, name) or snapshot.take(runs), members) for name, members in groups.items()]


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
            raise UserError(f"{error}; before that, {described(jobs, len(wanted)).partition(';')[0]}") from error
        raise
    return jobs


def _arrays(record: Record, wanted: list[str]) -> list[tuple[Cluster, list[str]]]:
    """The members of each array: those with the same request, as many as the cluster takes in one."""
    size = slurm.array_size()
    return [(request, members[begin : begin + size]) for request, members in _by_request(record, wanted)
            for begin in range(0, len(members), size)]  # fmt: skip


def _by_request(record: Record, wanted: list[str]) -> list[tuple[Cluster, list[str]]]:
    """Members that ask for the same share an array."""
    groups: dict[str, tuple[Cluster, list[str]]] = {}
    for member in wanted:
        request = _request(record.configs / f"{member}.yaml")
        groups.setdefault(str(asdict(request)), (request, []))[1].append(member)
    return list(groups.values())


def _request(path: Path) -> Cluster:
    """The request in a member's recorded config. UserError where it is damaged."""
    try:
        with open_plain(path) as file:
            request = Cluster(**yaml.load(file.read(MOST).decode(), LOADER)["cluster"])
        right = all(type(value) is type(getattr(Cluster(), key)) for key, value in asdict(request).items())
        if right and all(isinstance(text, str) for text in (*request.setup, *request.extra)):
            return request
    except (KeyError, TypeError, ValueError, yaml.YAMLError, RecursionError):
        pass
    raise UserError(f"{path}: damaged (no group cluster as a submission writes it); submit the sweep again")


def _check_setup(record: Record, members: list[str]) -> None:
    """UserError where jobs would run recorded shell lines that are not this checkout's: a record may be a stranger's."""
    for request, _ in _by_request(record, members):
        lines = [*request.setup, *request.extra]
        if lines and lines != [*(here := compose_config([]).cluster).setup, *here.extra]:
            raise UserError(f"{record.home}: its jobs would run {'; '.join(lines)}, which is not conf/cluster/site.yaml's; "
                            "add setup=recorded if these are your lines")  # fmt: skip


def cancel(record: Record) -> list[Row]:
    """End all that waits or runs; returns those members. Finished ones keep their figures.

    UserError where processes or SLURM's jobs that the record names are not certain to be this sweep's: they go on.
    """
    with record.locked():
        latest = {member: job for job in record.jobs() for member in job.members}
        going = [row for row in rows(record)[0] if row.state not in (*BAD, "done")]
        concerned = {latest[row.hash].number: latest[row.hash] for row in going if row.hash in latest}
        arrays = [job for job in concerned.values() if job.launcher == "slurm"]
        slurm.check_ours(record, arrays)
        for job in concerned.values():
            job.cancelled = time.time()
            record.write(job)
        names = [row.job for row in going if latest.get(row.hash) in arrays]
        for begin in range(0, len(names), 500):
            slurm.cancel(names[begin : begin + 500])
        left = [
            member
            for job in concerned.values()
            if job.launcher == "local"
            for member in local.Local(record, job).cancel([row.hash for row in going if latest.get(row.hash) is job])
        ]
        if left:
            raise UserError(f"{record.home}: {len(left)} members go on ({left[0]}, ...): their processes are another "
                            "machine's, or not certain to be this sweep's; cancel there")  # fmt: skip
        return going


def described(jobs: list[Job], total: int) -> str:
    """What a submission did, in one line."""
    queued = sum(len(job.members) for job in jobs)
    if not queued:
        return f"nothing to queue: all {total} members are done or under way"
    where = [f"SLURM array {job.job}" if job.launcher == "slurm" else f"{job.processes} at a time here" for job in jobs]
    return f"{queued} of {total} members queued ({', '.join(where)}); the others are done or under way"
