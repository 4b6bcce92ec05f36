"""Reads the content of a report from a run folder, which may be another user's.

A required file that is missing, and any damaged file, raises a one-line UserError that names it. Optional files that are
missing are left out, with a note.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ragaf_exp.config.stages import chain
from ragaf_exp.core.safe_files import is_regular, names_in, read_bounded
from ragaf_exp.report.run import parse
from ragaf_exp.report.run.judged import FILE as JUDGED
from ragaf_exp.report.run.judged import Judgement, read_judged
from ragaf_exp.report.run.parse import Scene
from ragaf_exp.runs import metrics_jsonl
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)


@dataclass
class RunData:
    """The content of a report."""

    path: Path
    config: str  # text of config.yaml
    status: dict[str, Any]
    environment: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)  # the config with its defaults
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)  # metric -> reason
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)  # figures by difficulty
    items: dict[str, int] = field(default_factory=dict)  # numbers of used and skipped items
    warnings: list[str] = field(default_factory=list)  # of the image checks
    log: list[dict[str, Any]] = field(default_factory=list)  # lines of metrics.jsonl
    scenes: list[Scene] = field(default_factory=list)
    fusion: dict[str, list[float]] | None = None
    grids: dict[str, Path] = field(default_factory=dict)  # the last validation grid of each stage
    judged: list[Judgement] = field(default_factory=list)  # by the models of other benchmarks
    notes: list[str] = field(default_factory=list)  # parts that are left out, and the reasons

    @property
    def stages(self) -> list[str]:
        """The stages with a line in the log, in the order they were trained."""
        return list(dict.fromkeys(row["stage"] for row in self.log))

    @property
    def titles(self) -> dict[str, str]:
        """The titles of the stages of its config by name."""
        return {stage.name: stage.title for stage in chain(self.settings)} if "stage" in self.settings else {}


def read_run(run_dir: Path) -> RunData:
    """Read a run folder. Raises UserError for a missing required file and for a damaged file."""
    folder, cfg = RunFolder.read(run_dir, finished=False)  # checks the config and the folder's schema
    run = RunData(folder.path, read_bounded(folder.path / "config.yaml").decode(), folder.state, {})
    run.settings = OmegaConf.to_container(cfg)
    run.environment = parse.mapping(folder.path / "environment.json")
    figures = _optional(run, folder.metrics, parse.figures) or parse.Figures()
    run.metrics, run.unavailable = figures.metrics, figures.unavailable
    run.groups, run.items, run.warnings = figures.groups, figures.items, figures.warnings
    run.log, unreadable = _optional(run, folder.curves, parse.log) or ([], [])
    if unreadable:
        run.notes.append(f"{folder.curves.name}: {metrics_jsonl.named(unreadable)}, so the curves are drawn without them.")
        log.warning("%s: %s", folder.path, run.notes[-1])
    run.scenes = _optional(run, folder.samples / "test" / "index.json", parse.scenes) or []
    run.fusion = _optional(run, folder.samples / "fusion.json", parse.fusion)
    run.grids = _grids(folder.samples)
    run.judged = read_judged(folder.path / JUDGED)
    return run


def _optional(run: RunData, path: Path, read) -> Any:
    if is_regular(path):
        return read(path)
    run.notes.append(f"{path.relative_to(run.path)} is not there, so its part of the report is left out.")
    return None


def _grids(samples: Path) -> dict[str, Path]:
    newest: dict[str, tuple[int, Path]] = {}
    for name in names_in(samples):
        match = re.fullmatch(r"(\w+)-([0-9]{1,12})\.png", name)
        if match and int(match[2]) >= newest.get(match[1], (-1, samples))[0]:
            newest[match[1]] = (int(match[2]), samples / name)
    return {stage: path for stage, (_, path) in sorted(newest.items())}
