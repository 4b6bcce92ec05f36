"""Parses and checks the files of a run folder that a report shows. A damaged file raises a one-line UserError."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.runs import metrics_jsonl

METRICS_SCHEMA = 1
FOLDER = re.compile(r"[\w-][\w.-]{0,63}")  # of a scene's pictures
PANELS = ("sketch", "regions")  # of a run whose index names none
PANEL = re.compile(r"[a-z][a-z0-9_]{0,31}")
PICTURES = (*IMAGES, "truth", "attention", "attention_steps")  # after the panels of the task


@dataclass(frozen=True)
class Scene:
    """One sampled test item."""

    key: str
    caption: str
    objects: list[dict[str, Any]]  # with the keys of index.json; empty if the data has no annotation
    pictures: dict[str, Path]  # the panels and those of PICTURES that exist


def mapping(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UserError for any other content."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise damaged(path, "not a mapping")
    return content


def damaged(path: Path, what: str) -> UserError:
    """The error for a damaged file."""
    return UserError(f"{path}: damaged ({what}); restore it, or run the run's command again")


def is_number(value: Any) -> bool:
    """Whether the value is a finite int or float and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


@dataclass
class Figures:
    """The content of metrics.json."""

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)  # metric -> reason
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # by difficulty, as eval.difficulty returns them
    items: dict[str, int] = field(default_factory=dict)  # numbers of used and skipped items
    warnings: list[str] = field(default_factory=list)  # of the image checks


def figures(path: Path) -> Figures:
    """Read metrics.json. Raises UserError if it is damaged or of a newer schema."""
    content = mapping(path)
    schema, metrics = content.get("schema", 0), content.get("metrics")
    if not isinstance(schema, int) or not isinstance(metrics, dict):
        raise damaged(path, "no schema" if isinstance(metrics, dict) else "no metrics")
    if schema > METRICS_SCHEMA:
        raise UserError(f"{path}: schema {schema} is newer than {METRICS_SCHEMA}; update ragaf_exp")
    unavailable, items = content.get("unavailable") or {}, content.get("items") or {}
    if not isinstance(unavailable, dict) or not all(isinstance(reason, str) for reason in unavailable.values()):
        raise damaged(path, "unavailable")
    if not isinstance(items, dict) or not all(map(is_number, items.values())):
        raise damaged(path, "items")
    warnings = content.get("warnings") or []
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        raise damaged(path, "warnings")
    metrics = {name: _figure(path, name, entry) for name, entry in metrics.items()}
    return Figures(metrics, unavailable, _groups(path, content.get("groups") or {}), items, warnings)


def _figure(path: Path, name: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not is_number(entry.get("value")):
        raise damaged(path, f"{name} has no value")
    if entry.get("ci95") is not None and not _numbers(entry["ci95"], 2):
        raise damaged(path, f"{name} has no interval of two numbers")
    return entry


def _groups(path: Path, content: Any) -> dict[str, dict[str, Any]]:
    try:
        for fact in content.values():
            for group in fact["groups"]:
                if ("from" in group) != ("to" in group):
                    raise ValueError
                counts = [group[key] for key in ("items", "from", "to") if key in group or key == "items"]
                if not all(map(is_number, [fact["without"], *counts])):
                    raise ValueError
                for name, entry in group["metrics"].items():
                    _figure(path, f"{name} of the group {group['group']}", entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, "groups") from error
    return content


def log(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows of metrics.jsonl and the numbers of unreadable lines; a killed run may leave its last line truncated.

    Raises UserError if no line can be read.
    """
    lines, unreadable = metrics_jsonl.read(path)
    if unreadable and not lines:
        raise UserError(
            f"{path}: damaged ({metrics_jsonl.named(unreadable)}); restore it, or remove it to do without its curves"
        )
    return [line.row for line in lines], unreadable


def scenes(path: Path) -> list[Scene]:
    """Read the index.json of the sampled test items. Raises UserError if it is damaged."""
    content = read_json(path)
    if not isinstance(content, list):
        raise damaged(path, "not a list")
    return [_scene(path, entry) for entry in content]


def _scene(path: Path, entry: Any) -> Scene:
    try:
        name = str(entry["dir"])
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
        panels = [str(panel) for panel in entry.get("panels", PANELS)]
        rivals = [str(rival) for rival in entry.get("rivals", ())]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, f"a scene's entry: {error!r}") from error
    if not FOLDER.fullmatch(name):  # another user's run folder must not show files outside it
        raise damaged(path, f"dir {name[:64]!r} lies outside")
    if not all(map(PANEL.fullmatch, (*panels, *rivals))):
        raise damaged(path, "a panel's name")
    folder = path.parent / name
    files = {picture: folder / f"{picture}.png" for picture in (*panels, *PICTURES, *rivals)}
    pictures = {picture: file for picture, file in files.items() if is_regular(file)}
    return Scene(key, caption, objects, pictures)


def fusion(path: Path) -> dict[str, list[float]]:
    """Read fusion.json, lists of equal length. Raises UserError if it is damaged."""
    content = mapping(path)
    wanted = ("timesteps", "sketch", "text")
    series = {name: content[name] for name in (*wanted, "sketch_std", "text_std") if content.get(name) is not None}
    steps = series.get("timesteps")
    length = len(steps) if isinstance(steps, list) else -1
    if not set(wanted) <= set(series) or not all(_numbers(values, length) for values in series.values()):
        raise damaged(path, "timesteps, sketch and text must be lists of as many numbers")
    return series
