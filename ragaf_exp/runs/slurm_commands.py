"""SLURM's commands and parsers for their output.

Some sites wrap the commands in scripts that print a banner first, so lines of any other form are ignored.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

PATIENCE_S = 30.0
TIMED_OUT, NOT_RUN = 124, 127  # exit status of a command that did not answer or could not be started
QUEUE = "%F|%K|%T|%r|%A"  # squeue: array, index, state, reason, job; see `queued`
PAST = "JobID,State,ExitCode"  # sacct; see `past`
ID = re.compile(r"(\d+)(;[\w.-]+)?")  # sbatch --parsable: the id, and the cluster if there are several
QUEUED = re.compile(r"(\d+)\|(\d+)\|([A-Z_]+)\|(.*)\|\d+")
ENDED = re.compile(r"(\d+)_(\d+)\|([A-Z_]+)[^|]*(?:\|(\d+:\d+))?\|?")


def run(*command: str, patience: float = PATIENCE_S) -> subprocess.CompletedProcess:
    """Run a command; its exit status is TIMED_OUT or NOT_RUN if it did not finish."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=patience)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, TIMED_OUT, "", f"{command[0]}: no answer in {patience:g} s")
    except OSError as error:
        why = "not found; is SLURM on this machine?" if isinstance(error, FileNotFoundError) else error.strerror
        return subprocess.CompletedProcess(command, NOT_RUN, "", f"{command[0]}: {why}")


def submitted(output: str) -> str | None:
    """Parse the job id that `sbatch --parsable` printed: the last line that is one."""
    ids = [match[1] for line in output.splitlines() if (match := ID.fullmatch(line.strip()))]
    return ids[-1] if ids else None


def queued(output: str) -> Iterator[tuple[str, int, str, str]]:
    """Parse `squeue -h -r -o QUEUE` to (array, index, state, reason) of each task."""
    for line in output.splitlines():
        if match := QUEUED.fullmatch(line.strip()):
            yield match[1], int(match[2]), match[3], match[4]


def past(output: str) -> Iterator[tuple[str, int, str, str]]:
    """Parse `sacct -n -X -P -o PAST` to (array, index, state, exit code) of each task."""
    for line in output.splitlines():
        if match := ENDED.fullmatch(line.strip()):
            yield match[1], int(match[2]), match[3], match[4] or ""


def described(output: str) -> list[dict[str, str]]:
    """Parse `scontrol show job -o`, one job per line; for an array's id these are all its tasks."""
    lines = (line.strip() for line in output.splitlines())
    return [_facts(line) for line in lines if re.match(r"JobId=\d+ ", f"{line} ")]


def _facts(line: str) -> dict[str, str]:
    facts = dict(field.split("=", 1) for field in line.split() if "=" in field)
    if command := re.search(r" Command=(.*?) WorkDir=", line):  # a path, perhaps with spaces
        facts["Command"] = command[1]
    return facts


def array_size(output: str) -> int | None:
    """Parse MaxArraySize in the output of `scontrol show config`."""
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)\s*$", output, re.MULTILINE)
    return int(size[1]) if size else None
