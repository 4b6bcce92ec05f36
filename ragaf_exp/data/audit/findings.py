"""Findings of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One kind of problem, or a fact worth knowing."""

    level: str  # ERROR: training or its figures would be wrong; WARNING: look at it; NOTE: a fact
    check: str  # short title
    count: int
    text: str  # what it means and what to do
    examples: Sequence[str] = field(default=())  # the worst first
    keys: Sequence[str] = field(default=())  # of the items to show, the worst first


def count_of(level: str, findings: Sequence[Finding]) -> int:
    """Count the findings of a level."""
    return sum(finding.level == level for finding in findings)
