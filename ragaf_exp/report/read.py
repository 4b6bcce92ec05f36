"""Reads what a report shows from a run folder, perhaps a stranger's.

What is needed and missing, or there and damaged, is a UserError of one line naming the file. What is
optional and missing is left out, and a note says so.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragaf_exp.errors import UserError
from ragaf_exp.files import read_json
from ragaf_exp.runfolder import RunFolder

METRICS_SCHEMA = 1
PICTURES = ("sketch", "regions", "stage1", "stage2", "truth", "attention")


@dataclass(frozen=True)
class Scene:
    """One sampled test item."""

    key: str
    caption: str
    objects: list[dict[str, Any]]  # phrase, wanted, found, correct; empty where the data has no annotation
    pictures: dict[str, Path]  # those of PICTURES that are there


@dataclass
class RunData:
    """All that a report shows."""

    path: Path
    config: str  # config.yaml as it stands
    status: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)  # lines of metrics.jsonl
    scenes: list[Scene] = field(default_factory=list)
    fusion: dict[str, list[float]] | None = None
    grids: dict[str, Path] = field(default_factory=dict)  # the last validation grid of each stage
    notes: list[str] = field(default_factory=list)  # what is left out, and why

    @property
    def stages(self) -> list[str]:
        """The stages with a line in the log, in the order they were trained."""
        return list(dict.fromkeys(row["stage"] for row in self.log))


def read_run(run_dir: Path) -> RunData:
    """Everything of a run folder; raises UserError as the module's text says."""
    folder, _ = RunFolder.read(run_dir, finished=False)  # checks the config and the folder's schema
    run = RunData(folder.path, (folder.path / "config.yaml").read_text(), folder.state, {})
    run.environment = _mapping(folder.path / "environment.json")
    run.metrics = _optional(run, folder.metrics, _metrics) or {}
    run.log = _optional(run, folder.curves, _log) or []
    run.scenes = _optional(run, folder.samples / "test" / "index.json", _scenes) or []
    run.fusion = _optional(run, folder.samples / "fusion.json", _fusion)
    run.grids = _grids(folder.samples)
    return run


def _optional(run: RunData, path: Path, read) -> Any:
    if path.exists():
        return read(path)
    run.notes.append(f"{path.relative_to(run.path)} is not there, so what it would show is left out.")
    return None


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise _damaged(path, "not a mapping")
    return content


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: damaged ({what}); restore it, or run the run's command again")


def is_number(value: Any) -> bool:
    """A finite int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def _metrics(path: Path) -> dict[str, dict[str, Any]]:
    content = _mapping(path)
    if content.get("schema", 0) > METRICS_SCHEMA:
        raise UserError(
            f"{path}: schema {content['schema']} is newer than {METRICS_SCHEMA}; update ragaf_exp"
        )
    metrics = content.get("metrics")
    if not isinstance(metrics, dict):
        raise _damaged(path, "no metrics")
    for name, entry in metrics.items():
        if not isinstance(entry, dict) or not is_number(entry.get("value")):
            raise _damaged(path, f"{name} has no value")
        interval = entry.get("ci95")
        if interval is not None and not _numbers(interval, 2):
            raise _damaged(path, f"{name} has no interval of two numbers")
    return metrics


def _log(path: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; the last one may be cut short, as a kill leaves it."""
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "stage": str(row["stage"]), "step": int(row["step"])})
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise _damaged(path, f"line {number}") from error
    return rows


def _scenes(path: Path) -> list[Scene]:
    content = read_json(path)
    if not isinstance(content, list):
        raise _damaged(path, "not a list")
    return [_scene(path, entry) for entry in content]


def _scene(path: Path, entry: Any) -> Scene:
    try:
        folder = (path.parent / entry["dir"]).resolve()
        objects = [
            {
                "phrase": str(o["phrase"]),
                "wanted": o["wanted"],
                "found": o["found"],
                "correct": bool(o["correct"]),
            }
            for o in entry.get("objects") or []
        ]
        key, caption = str(entry["key"]), str(entry["caption"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"a scene's entry: {error!r}") from error
    if not folder.is_relative_to(path.parent.resolve()):  # a stranger's run folder shows its own files only
        raise _damaged(path, f"dir {entry['dir']} lies outside")
    pictures = {name: folder / f"{name}.png" for name in PICTURES if (folder / f"{name}.png").is_file()}
    return Scene(key, caption, objects, pictures)


def _fusion(path: Path) -> dict[str, list[float]]:
    content = _mapping(path)
    wanted = ("timesteps", "sketch", "text")
    series = {
        name: content[name] for name in (*wanted, "sketch_std", "text_std") if content.get(name) is not None
    }
    steps = series.get("timesteps")
    length = len(steps) if isinstance(steps, list) else -1
    if not set(wanted) <= set(series) or not all(_numbers(values, length) for values in series.values()):
        raise _damaged(path, "timesteps, sketch and text must be lists of as many numbers")
    return series


def _grids(samples: Path) -> dict[str, Path]:
    found: dict[str, tuple[int, Path]] = {}
    for path in samples.glob("*.png"):
        match = re.fullmatch(r"(\w+)-(\d+)", path.stem)
        if match and int(match[2]) >= found.get(match[1], (-1, path))[0]:
            found[match[1]] = (int(match[2]), path)
    return {stage: path for stage, (_, path) in sorted(found.items())}
