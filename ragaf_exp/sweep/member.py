"""What a job runs, from its snapshot: `python SNAPSHOT member JOB.json INDEX`, or `supervise JOB.json` on one machine."""

from __future__ import annotations

import sys
from pathlib import Path

from ragaf_exp.cli import guarded
from ragaf_exp.errors import UserError
from ragaf_exp.sweep.record import Job, Record, read_job, read_loosely


def command_line() -> None:
    """What a snapshot's __main__ calls."""
    guarded(lambda: main(sys.argv[1:]))


def main(arguments: list[str]) -> None:
    """UserError where the job is none, or has no such member."""
    kind, path = arguments[0], Path(arguments[1])
    record, job = Record(path.parents[2]), read_job(path)
    if kind == "supervise":
        from ragaf_exp.sweep.local import Supervisor

        return Supervisor(record, job).run()
    index = int(arguments[2])
    if not 0 <= index < len(job.members):
        raise UserError(f"{path}: has no member {index}")
    run_member(record, job, job.members[index])


def run_member(record: Record, job: Job, member: str) -> None:
    """One member, in its own run folder, with the config that was fixed at submission."""
    if read_loosely(record.home / member / "status.json").get("state") == "done":
        print(f"{record.home / member}: already finished")
        return
    from ragaf_exp.config.compose import load_config
    from ragaf_exp.run import job as run_job

    run_job(load_config(record.configs / f"{member}.yaml"))
