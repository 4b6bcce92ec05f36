"""The runs of a comparison, given one by one or as a sweep's folder."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.items import ItemRow, flat, read_counted
from ragaf_exp.config.compose import OUTPUT_KEYS
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.data.listing import visible
from ragaf_exp.report.run.read import RunData, read_run

HASH = re.compile(r"[0-9a-f]{12}")  # a run folder's name
NEEDED = ("config.yaml", "environment.json", "status.json")  # files that every run writes at its start
TOLERANCE = 1e-6  # relative: figures of metrics.json and items.jsonl are equal up to rounding


@dataclass
class Member:
    """One run of a comparison."""

    letter: str  # A, B, ... in the order given
    path: Path
    run: RunData | None = None  # None if it never started
    rows: list[ItemRow] | None = None  # of items.jsonl; None if that is missing
    missing: str = ""  # reason why it has no figures

    @property
    def name(self) -> str:
        """Names of the sweep's and the run's folder."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def short_path(self) -> str:
        """The end of the path, for pages: a page that is passed on must not reveal the host's folders."""
        return "/".join(self.path.parts[-3:])

    @property
    def settings(self) -> dict[str, Any]:
        """The config by full keys, without keys that only name output folders."""
        content = self.run.settings if self.run else {}
        return dict(_flattened({k: v for k, v in content.items() if k not in (*OUTPUT_KEYS, "name")}))


def find_folders(named: list[str]) -> list[Path]:
    """The run folders, each once, in the order given; a folder of runs stands for all of them, in the order of names.

    Raises UserError if a folder is missing, or is not a run and holds none.
    """
    folders: dict[Path, None] = {}
    for name in named:
        path = Path(name).absolute().resolve()
        if not path.is_dir():
            raise UserError(f"runs=[{','.join(named)}]: no such run folder: {name}")
        run_folders = [path] if is_run(path) else sweep_members(path)
        if not run_folders:
            raise UserError(f"{name}: no run folder (config.yaml is missing) and none in it; give run folders or a sweep's")
        folders |= dict.fromkeys(run_folders)
    return list(folders)


def sweep_members(path: Path) -> list[Path]:
    """The run folders in a folder, or else in its subfolders, ignoring links, such as runs/latest, and hidden names."""
    children = [p for p in visible(path.iterdir()) if p.is_dir() and not p.is_symlink()]
    direct = [p for p in children if is_run(p)]
    nested = (p for child in children for p in visible(child.iterdir()) if p.is_dir() and not p.is_symlink())
    return direct or [p for p in nested if is_run(p)]


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, even one that has only started."""
    return (path / "config.yaml").is_file() or bool(HASH.fullmatch(path.name))


def read_members(named: list[str]) -> list[Member]:
    """Read every run; `missing` marks those without figures. Raises UserError for a damaged file."""
    return [_read(letter(i), path) for i, path in enumerate(find_folders(named))]


def letter(index: int) -> str:
    """A to Z, then AA, AB, ... as in spreadsheets."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def _read(name: str, path: Path) -> Member:
    absent = [file for file in NEEDED if not is_regular(path / file)]
    if absent:
        return Member(name, path, missing=f"{absent[0]} is not there: the run never started")
    run = read_run(path)
    if not run.metrics:
        state, error = run.status.get("state", "unknown"), run.status.get("error")
        why = "no metrics.json" if not is_regular(path / "metrics.json") else "metrics.json holds no figure"
        return Member(name, path, run, missing=f"{why}; state {state}" + (f": {error}" if error else ""))
    items = path / "items.jsonl"
    rows, skipped = read_counted(items) if is_regular(items) else (None, 0)
    member = Member(name, path, run, rows)
    if not skipped:
        _fits(member, items)
    return member


def _fits(member: Member, path: Path) -> None:
    """Raise UserError if items and figures come from different evaluations."""
    for name, entry in member.run.metrics.items():
        values, _ = flat(member.rows or [], name)
        if values and not (
            entry.get("n") == len(values)
            and math.isclose(math.fsum(values) / len(values), entry["value"], rel_tol=TOLERANCE, abs_tol=1e-9)
        ):
            raise UserError(
                f"{path}: {name} is not that of metrics.json; python -m eval run={member.path} writes both again"
            )


def _flattened(content: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in content.items():
        inner = _flattened(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]
        pairs += inner
    return pairs
