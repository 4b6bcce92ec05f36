"""The options of a batch script: those of cluster.*, each replaced by an option of cluster.extra that means the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from ragaf_exp.config.schema import Cluster
from ragaf_exp.core.errors import UserError
from ragaf_exp.sweep.ledger import Job, Record

SHORT = {  # sbatch's one-letter options
    "A": "account", "C": "constraint", "G": "gpus", "J": "job-name", "N": "nodes", "a": "array", "c": "cpus-per-task",
    "n": "ntasks", "o": "output", "p": "partition", "q": "qos", "t": "time",
}  # fmt: skip
INSTEAD = {  # further options that replace ours: sbatch refuses both, or would grant both
    "mem": ("mem-per-cpu", "mem-per-gpu"), "cpus-per-task": ("cpus-per-gpu",), "requeue": ("no-requeue",),
    "ntasks-per-node": ("ntasks", "tasks-per-node"),
    "gpus-per-node": ("gres", "gpus", "gpus-per-socket", "gpus-per-task"),
}  # fmt: skip
OURS = ("array", "output")  # the record finds members and their logs by these


def options(record: Record, job: Job, request: Cluster) -> list[str]:
    """The script's options, one a line.

    UserError where a value cannot stand in a batch script, or cluster.extra holds an option that must be ours.
    """
    given = set().union(*map(_names, request.extra))
    for name in OURS:
        if name in given:
            raise UserError(f"cluster.extra: --{name} is set by the sweep; leave it out")
    wanted = {name: value for name, value in _wanted(record, job, request).items() if value}
    ours = [_option(name, value) for name, value in wanted.items() if not given & {name, *INSTEAD.get(name, ())}]
    for option in request.extra:
        _check("cluster.extra", option)
    return [*ours, *request.extra]


def _wanted(record: Record, job: Job, request: Cluster) -> dict[str, str]:
    """Option -> value; empty where it is left out."""
    signal = "USR1" if request.nodes * request.tasks > 1 else "B:USR1"
    numbers = {
        "nodes": request.nodes, "ntasks-per-node": request.tasks, "cpus-per-task": request.cpus,
        "mem": f"{request.memory_gb * 1000}M" if request.memory_gb else 0, "gpus-per-node": request.gpus,
        "time": request.minutes, "signal": f"{signal}@{request.grace}" if request.grace else 0,
    }  # fmt: skip
    return {
        "job-name": record.home.name,
        "array": f"0-{len(job.members) - 1}" + (f"%{request.parallel}" if request.parallel else ""),
        "output": _pattern(record.logs) + "/%A_%a.log", "open-mode": "append", "partition": request.partition,
        "account": request.account, "qos": request.qos, "constraint": request.constraint,
        **{name: str(value) for name, value in numbers.items() if value}, "requeue": "yes",
    }  # fmt: skip


def _pattern(folder: Path) -> str:
    """A folder as sbatch's file name patterns have it. UserError where they cannot: a backslash ends all replacement."""
    if "\\" in str(folder):
        raise UserError(f"runs, name: {folder}: SLURM cannot write logs below a name with a backslash; choose another")
    return str(folder).replace("%", "%%")


def _option(name: str, value: str) -> str:
    """An option with its value in quotes where it needs them: sbatch reads its lines as a shell does."""
    _check(name, value)
    return "--requeue" if name == "requeue" else f"--{name}={shlex.quote(value)}"


def _check(key: str, value: str) -> None:
    """A line break would begin a command of the script."""
    if not value.isprintable():
        raise UserError(f"{key}={value!r}: holds a control character, which a batch script cannot; leave it out")


def _names(option: str) -> set[str]:
    """The long names of the options in an entry of cluster.extra, as --gres=gpu:1, --gres gpu:1 or -pgpu."""
    try:
        tokens = shlex.split(option)
    except ValueError as error:
        raise UserError(f"cluster.extra: {option}: {error}; close the quotes") from error
    long = {token[2:].partition("=")[0] for token in tokens if token.startswith("--")}
    if "gpu" not in option:
        long.discard("gres")  # of something else, as a node's own disk
    return long | {SHORT.get(token[1], token[1]) for token in tokens if re.match("-[^-]", token)}
