"""The entry point of a job's snapshot: `python SNAPSHOT member JOB.json INDEX`, or `supervise JOB.json` on one machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ragaf_exp.config.command_line import guarded
from ragaf_exp.core.errors import UserError
from ragaf_exp.sweep.ledger import Job, Record, read_job
from ragaf_exp.sweep.reading import read_loosely

if TYPE_CHECKING:
    from omegaconf import DictConfig


def command_line() -> None:
    """The command line of a snapshot's __main__."""
    guarded(lambda: main(sys.argv[1:]))


def main(arguments: list[str]) -> None:
    """Run a member or a supervisor. Raises UserError if the job is damaged or has no such member."""
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
    """Run one member in its run folder, with the config written at submission.

    Args:
        record: The sweep's folder.
        job: The job that runs the member.
        member: The hash of the member's config.
    """
    if read_loosely(record.home / member / "status.json").get("state") == "done":
        print(f"{record.home / member}: already finished")
        return
    from ragaf_exp.experiments.start import start

    start(config_of(record, member))


def config_of(record: Record, member: str) -> DictConfig:
    """The config written at submission, adjusted if the sweep moved. Raises UserError if it was edited since."""
    from ragaf_exp.config.compose import config_hash, load_config

    path = record.configs / f"{member}.yaml"
    cfg = load_config(path)
    if config_hash(cfg) != member:
        raise UserError(f"{path}: not the config that was submitted; submit the sweep again")
    if (Path(cfg.runs) / cfg.name).resolve() != record.home.resolve():
        cfg.runs = str(record.home.parent)  # the sweep was moved
        if record.home.name != cfg.name:
            raise UserError(f"{record.home}: a sweep with name={cfg.name} must be in a folder {cfg.name}; rename it")
    return cfg
