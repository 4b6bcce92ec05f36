"""The members of a study: runs that differ in the seed alone are one."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eval.statistics.crossed import Scores, scores
from ragaf_exp.report.compare.runs import Member
from ragaf_exp.runs.checkpoints import newest_whole

FULL, BASELINE = "full", "baseline"  # what others are held against, where a study has them


@dataclass
class Group:
    """One member of a study, with its runs in the order of their seeds."""

    name: str
    runs: list[Member] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        return [run.run.settings["seed"] for run in self.runs]

    def scores(self, metric: str) -> Scores | None:
        """What its runs scored; None where one of them lacks the metric."""
        return scores({m.run.settings["seed"]: m.rows for m in self.runs}, metric)

    @cached_property
    def seconds(self) -> float:
        """Training time of a run, the mean over seeds."""
        return sum(training_seconds(m.run.log)[-1] if m.run.log else 0.0 for m in self.runs) / len(self.runs)

    @cached_property
    def parameters(self) -> int | None:
        """Of the last stage's model; None where its checkpoint is gone."""
        member = self.runs[0]
        place = newest_whole(member.path / "checkpoints", member.run.stages[-1]) if member.run.stages else None
        return None if place is None else count_parameters(place / "ema.safetensors")


def named(member: Member) -> str:
    """What the study calls a run; empty where it is no study's."""
    return study_name(member.run.settings) if member.run else ""


def study_name(settings: dict[str, Any]) -> str:
    """The same of a whole config."""
    return str((settings.get("study") or {}).get("member", ""))


def group(members: list[Member]) -> list[Group]:
    """Members with figures of every item: full and baseline first, then by name, those of no name by their letters."""
    found: dict[tuple, Group] = {}
    for member in members:
        key = tuple(sorted((k, str(v)) for k, v in member.settings.items() if k != "seed"))
        found.setdefault((named(member), key), Group(named(member) or member.letter)).runs.append(member)
    for of in found.values():
        of.runs.sort(key=lambda member: member.run.settings["seed"])
    return sorted(found.values(), key=lambda g: ((FULL, BASELINE, g.name).index(g.name), g.name))


def training_seconds(log: list[dict[str, Any]]) -> list[float]:
    """Seconds that training steps took up to each line of a run's log, over all its stages; drawing does not count."""
    total, stage, step, found = 0.0, None, 0, []
    for row in log:
        step = step if row["stage"] == stage else 0
        if row.get("rate"):
            total += (row["step"] - step) / row["rate"]
            step = row["step"]
        stage = row["stage"]
        found.append(total)
    return found


def training_steps(log: list[dict[str, Any]]) -> list[int]:
    """Optimizer steps up to each line, over all stages."""
    before, stage, last, found = 0, None, 0, []
    for row in log:
        if stage not in (None, row["stage"]):
            before += last
        stage, last = row["stage"], row["step"]
        found.append(before + last)
    return found


def count_parameters(path: Path) -> int:
    """Of a safetensors file, from its header."""
    with safe_open(path, "pt") as file:  # newest_whole() looked at it
        total = 0
        for key in file.keys():  # noqa: SIM118 - no mapping
            size = 1
            for side in file.get_slice(key).get_shape():
                size *= side
            total += size
        return total
