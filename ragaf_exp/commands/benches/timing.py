"""How benchmarks are timed: machines are shared and noisy, so everything is measured beside its reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

TURNS = 12


def medians(functions: list[Callable[[], object]], turns: int = TURNS) -> list[float]:
    """Median milliseconds of each function; they take turns, after one round that does not count."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, kept in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            if turn:
                kept.append((time.perf_counter() - began) * 1000)
    return [statistics.median(kept) for kept in times]


def row(name: str, value: float, reference: float, unit: str, what: str) -> dict[str, Any]:
    """A row of bench.json with its reference, which was measured in the same process."""
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": value / reference,
            "what": what}  # fmt: skip
