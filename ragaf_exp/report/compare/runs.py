"""The runs that a comparison is of: named one by one, or as a sweep folder that holds them."""

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
NEEDED = ("config.yaml", "environment.json", "status.json")  # what every run writes as it begins
TOLERANCE = 1e-6  # relative: metrics.json and items.jsonl hold the same figures but for rounding


@dataclass
class Member:
    """One run of a comparison."""

    letter: str  # A, B, ... in the order named
    path: Path
    run: RunData | None = None  # None where it had not even begun
    rows: list[ItemRow] | None = None  # of items.jsonl; None where that is missing
    missing: str = ""  # why it has no figures

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def place(self) -> str:
        """Its path as pages show it: a page that is handed on tells nothing of the host."""
        return "/".join(self.path.parts[-3:])

    @property
    def settings(self) -> dict[str, Any]:
        """Its config by full keys, without what says only where things are kept."""
        content = self.run.settings if self.run else {}
        return dict(_flattened({k: v for k, v in content.items() if k not in (*OUTPUT_KEYS, "name")}))


def find_folders(named: list[str]) -> list[Path]:
    """The run folders meant, each once, in the order named; a folder of runs stands for all of them, by name.

    UserError where a folder is missing, or is neither a run nor holds any.
    """
    found: dict[Path, None] = {}
    for name in named:
        path = Path(name).absolute().resolve()
        if not path.is_dir():
            raise UserError(f"runs=[{','.join(named)}]: no such run folder: {name}")
        inside = [path] if is_run(path) else sweep_members(path)
        if not inside:
            raise UserError(f"{name}: no run folder (config.yaml is missing) and none in it; give run folders or a sweep's")
        found |= dict.fromkeys(inside)
    return list(found)


def sweep_members(path: Path) -> list[Path]:
    """The run folders in a folder, or else in its folders. Links, such as runs/latest, and hidden names are passed over."""
    children = [p for p in visible(path.iterdir()) if p.is_dir() and not p.is_symlink()]
    found = [p for p in children if is_run(p)]
    inner = (p for child in children for p in visible(child.iterdir()) if p.is_dir() and not p.is_symlink())
    return found or [p for p in inner if is_run(p)]


def is_run(path: Path) -> bool:
    """Whether a folder is a run's, perhaps one that has only begun."""
    return (path / "config.yaml").is_file() or bool(HASH.fullmatch(path.name))


def read_members(named: list[str]) -> list[Member]:
    """Every run, those without figures marked. UserError where a file is there and damaged."""
    return [_read(letter(i), path) for i, path in enumerate(find_folders(named))]


def letter(index: int) -> str:
    """A to Z, then AA, AB, ... as spreadsheets count."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def _read(name: str, path: Path) -> Member:
    absent = [file for file in NEEDED if not is_regular(path / file)]
    if absent:
        return Member(name, path, missing=f"{absent[0]} is not there: the run never began")
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
    """UserError where the items were scored by another evaluation than the figures."""
    for name, entry in member.run.metrics.items():
        values, _ = flat(member.rows or [], name)
        if values and not (
            entry.get("n") == len(values)
            and math.isclose(math.fsum(values) / len(values), entry["value"], rel_tol=TOLERANCE, abs_tol=1e-9)
        ):
            raise UserError(f"{path}: {name} is not that of metrics.json; python -m eval run={member.path} mends both")


def _flattened(content: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in content.items():
        inner = _flattened(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(prefix + key, value)]
        pairs += inner
    return pairs
