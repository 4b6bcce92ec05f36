"""The members of a study. Runs that differ only in their seed belong to one member."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eval.statistics.crossed import Scores, scores
from ragaf_exp.report.compare.runs import Member
from ragaf_exp.runs.checkpoints import newest_whole

FULL, BASELINE = "full", "baseline"  # reference members, if a study has them


@dataclass
class Group:
    """One member of a study, with its runs in the order of their seeds."""

    name: str
    runs: list[Member] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        return [run.run.settings["seed"] for run in self.runs]

    def scores(self, metric: str) -> Scores | None:
        """The scores of its runs; None if one of them lacks the metric."""
        return scores({m.run.settings["seed"]: m.rows for m in self.runs}, metric)

    @cached_property
    def seconds(self) -> float:
        """Mean training time of a run over seeds."""
        return sum(training_seconds(m.run.log)[-1] if m.run.log else 0.0 for m in self.runs) / len(self.runs)

    @cached_property
    def parameters(self) -> int | None:
        """Number of parameters of the last stage's model; None if its checkpoint is missing."""
        member = self.runs[0]
        checkpoint = newest_whole(member.path / "checkpoints", member.run.stages[-1]) if member.run.stages else None
        return None if checkpoint is None else count_parameters(checkpoint / "ema.safetensors")


def named(member: Member) -> str:
    """A run's name in its study; empty if it belongs to none."""
    return study_name(member.run.settings) if member.run else ""


def study_name(settings: dict[str, Any]) -> str:
    """The name in its study of a run with this config; empty if it belongs to none."""
    return str((settings.get("study") or {}).get("member", ""))


def group(members: list[Member]) -> list[Group]:
    """Group runs to members: full and baseline first, then by name; runs without a name are named by their letter."""
    groups: dict[tuple, Group] = {}
    for member in members:
        key = tuple(sorted((k, str(v)) for k, v in member.settings.items() if k != "seed"))
        groups.setdefault((named(member), key), Group(named(member) or member.letter)).runs.append(member)
    for of in groups.values():
        of.runs.sort(key=lambda member: member.run.settings["seed"])
    return sorted(groups.values(), key=lambda g: ((FULL, BASELINE, g.name).index(g.name), g.name))


def training_seconds(log: list[dict[str, Any]]) -> list[float]:
    """Seconds of training steps up to each line of a run's log, over all its stages, without sampling."""
    total, stage, step, seconds = 0.0, None, 0, []
    for row in log:
        step = step if row["stage"] == stage else 0
        if row.get("rate"):
            total += (row["step"] - step) / row["rate"]
            step = row["step"]
        stage = row["stage"]
        seconds.append(total)
    return seconds


def training_steps(log: list[dict[str, Any]]) -> list[int]:
    """Optimizer steps up to each line of a run's log, over all its stages."""
    before, stage, last, steps = 0, None, 0, []
    for row in log:
        if stage not in (None, row["stage"]):
            before += last
        stage, last = row["stage"], row["step"]
        steps.append(before + last)
    return steps


def count_parameters(path: Path) -> int:
    """Number of parameters in a safetensors file, from its header."""
    with safe_open(path, "pt") as file:  # newest_whole() has checked it
        total = 0
        for key in file.keys():  # noqa: SIM118 - no mapping
            size = 1
            for side in file.get_slice(key).get_shape():
                size *= side
            total += size
        return total
