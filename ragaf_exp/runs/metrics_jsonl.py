"""metrics.jsonl of a run, one line per logged step; a kill or a power cut can damage only the line being written."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ragaf_exp.core.files import parse_json, sync, write_text
from ragaf_exp.core.safe_files import LOG, is_regular, open_append, read_bounded

log = logging.getLogger(__name__)
SHOWN = 3  # numbers of unreadable lines in a message


class Line(NamedTuple):
    """A line of the file and its parsed row."""

    text: str
    row: dict[str, Any]  # with stage, a string, and step, an integer


def append(path: Path, row: dict[str, Any]) -> None:
    """Append a line after the last complete one; an incomplete line is cut off."""
    with open_append(path) as file:
        _cut_incomplete(file)
        file.write(json.dumps(row).encode() + b"\n")


def read(path: Path) -> tuple[list[Line], list[int]]:
    """Read the complete lines, and the numbers of those without a row; an incomplete last line is neither."""
    lines, unreadable = [], []
    for number, text in enumerate(read_bounded(path, LOG).decode(errors="replace").splitlines(keepends=True), 1):
        if (row := _row(text)) is not None:
            lines.append(Line(text, row))
        elif text.endswith("\n"):
            unreadable.append(number)
    return lines, unreadable


def rewind(path: Path, stage: str, step: int) -> None:
    """Drop lines that training is about to write again, and unreadable lines.

    Args:
        path: The metrics.jsonl file.
        stage: The stage that continues.
        step: The last step of the stage whose line remains.
    """
    lines, unreadable = read(path)
    if unreadable:
        log.warning("%s: %s; dropped", path, named(unreadable))
    rest = (line.text for line in lines if line.row["stage"] != stage or line.row["step"] <= step)
    write_text(path, "".join(rest), own=True)


def validated(path: Path, stage: str, step: int) -> bool:
    """Whether the file contains the validation of a step.

    Args:
        path: The metrics.jsonl file.
        stage: The stage.
        step: The step of that stage.
    """
    rows = [line.row for line in read(path)[0] if "validation" in line.row] if is_regular(path) else []
    return any(row["stage"] == stage and row["step"] == step for row in rows)


def keep(path: Path) -> None:
    """Sync the file to disk, so that its lines survive a power cut, as the next checkpoint will."""
    if is_regular(path):
        sync(path)


def named(unreadable: list[int]) -> str:
    """List the unreadable lines, for a message."""
    shown = ", ".join(map(str, unreadable[:SHOWN]))
    more = f" and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
    return f"line{'s' * (len(unreadable) > 1)} {shown}{more} can't be read"


def _row(text: str) -> dict[str, Any] | None:
    """Parse a line's row; None if the line is incomplete or has none."""
    try:
        row = parse_json(text)
        return {**row, "stage": str(row["stage"]), "step": int(row["step"])} if text.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _cut_incomplete(file: BinaryIO) -> None:
    if not file.seek(0, os.SEEK_END):
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
