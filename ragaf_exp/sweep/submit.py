"""Submission, retry and cancellation of members."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import yaml

from ragaf_exp.config.schema import Cluster
from ragaf_exp.errors import UserError
from ragaf_exp.sweep import local, slurm, snapshot
from ragaf_exp.sweep.folders import LOADER
from ragaf_exp.sweep.members import Member
from ragaf_exp.sweep.record import Job, Record
from ragaf_exp.sweep.truth import BAD, Row, rows

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


def retry(record: Record, launcher: str, processes: int, fresh: bool) -> list[Job]:
    """Queue again what failed, was lost or cancelled, by its recorded config.

    fresh: with the code as it is now, instead of that of the first submission.
    """
    with record.locked():
        idle = [row.hash for row in rows(record)[0] if row.state in BAD]
        if not idle:
            return []
        if fresh:
            return _queue(record, idle, snapshot.take(record.home.parent), launcher, processes)
        jobs = []
        for code in dict.fromkeys(used := {member: _code(record, member) for member in idle}.values()):
            jobs += _queue(record, [m for m, c in zip(idle, used, strict=True) if c == code], code, launcher, processes)
        return jobs


def _code(record: Record, member: str) -> Path:
    """The snapshot that a member was last queued with."""
    found = next((Path(job.snapshot) for job in reversed(record.jobs()) if member in job.members), None)
    return found if found is not None and found.is_dir() else snapshot.take(record.home.parent)


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
        request = Cluster(**yaml.load((record.configs / f"{member}.yaml").read_text(), LOADER)["cluster"])
        groups.setdefault(str(asdict(request)), (request, []))[1].append(member)
    return list(groups.values())


def cancel(record: Record) -> list[Row]:
    """End all that waits or runs; returns those members. Finished ones keep their figures."""
    with record.locked():
        jobs = record.jobs()
        latest = {member: job for job in jobs for member in job.members}
        going = [row for row in rows(record)[0] if row.state not in (*BAD, "done")]
        concerned = {latest[row.hash].number for row in going if row.hash in latest}
        for job in jobs:
            if job.number in concerned:
                job.cancelled = time.time()
                record.write(job)
        names = [row.job for row in going if row.hash in latest and latest[row.hash].launcher == "slurm"]
        for begin in range(0, len(names), 500):
            slurm.cancel(names[begin : begin + 500])
        for job in jobs:
            if job.launcher == "local" and job.number in concerned:
                local.Local(record, job).cancel([row.hash for row in going])
        return going


def described(jobs: list[Job], total: int) -> str:
    """What a submission did, in one line."""
    queued = sum(len(job.members) for job in jobs)
    if not queued:
        return f"nothing to queue: all {total} members are done or under way"
    where = [f"SLURM array {job.job}" if job.launcher == "slurm" else f"{job.processes} at a time here" for job in jobs]
    return f"{queued} of {total} members queued ({', '.join(where)}); the others are done or under way"
