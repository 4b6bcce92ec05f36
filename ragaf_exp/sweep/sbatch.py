"""The options of a batch script: those of cluster.*, unless an option of cluster.extra replaces them."""

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
INSTEAD = {  # further options that replace ours: sbatch rejects the pair, or grants both
    "mem": ("mem-per-cpu", "mem-per-gpu"), "cpus-per-task": ("cpus-per-gpu",), "requeue": ("no-requeue",),
    "ntasks-per-node": ("ntasks", "tasks-per-node"),
    "gpus-per-node": ("gres", "gpus", "gpus-per-socket", "gpus-per-task"),
}  # fmt: skip
OURS = ("array", "output")  # these map array indices to members and their logs


def options(record: Record, job: Job, request: Cluster) -> list[str]:
    """The options of a job's script, one per line.

    Args:
        record: The sweep's record.
        job: The job, whose members become an array.
        request: The resources of each member, from config group cluster.

    Returns:
        Options such as --nodes=1, without #SBATCH.

    Raises:
        UserError: If a value cannot be written into a batch script, or cluster.extra sets an option of the sweep.
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
    """Option -> value; empty values are left out."""
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
    """A folder in sbatch's file name patterns. Raises UserError for a backslash, which disables all replacement."""
    if "\\" in str(folder):
        raise UserError(f"runs, name: {folder}: SLURM cannot write logs below a name with a backslash; choose another")
    return str(folder).replace("%", "%%")


def _option(name: str, value: str) -> str:
    """An option, its value quoted if needed: sbatch splits its lines as a shell does."""
    _check(name, value)
    return "--requeue" if name == "requeue" else f"--{name}={shlex.quote(value)}"


def _check(key: str, value: str) -> None:
    """Refuse control characters: a line break would start a command of the script."""
    if not value.isprintable():
        raise UserError(f"{key}={value!r}: contains a control character, which a batch script cannot; leave it out")


def _names(option: str) -> set[str]:
    """The long names of the options in an entry of cluster.extra, e.g. --gres=gpu:1, --gres gpu:1 or -pgpu."""
    try:
        tokens = shlex.split(option)
    except ValueError as error:
        raise UserError(f"cluster.extra: {option}: {error}; close the quotes") from error
    long = {token[2:].partition("=")[0] for token in tokens if token.startswith("--")}
    if "gpu" not in option:
        long.discard("gres")  # of another resource, e.g. a node's local disk
    return long | {SHORT.get(token[1], token[1]) for token in tokens if re.match("-[^-]", token)}
