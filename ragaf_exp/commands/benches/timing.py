"""Timing of benchmarks. Shared machines are noisy, so that everything is measured in turn with its reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

TURNS = 12


def medians(functions: list[Callable[[], object]], turns: int = TURNS) -> list[float]:
    """Median milliseconds of each function. They are called in turn, after a warm-up round."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(turns + 1):
        for function, milliseconds in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            if turn:
                milliseconds.append((time.perf_counter() - began) * 1000)
    return [statistics.median(milliseconds) for milliseconds in times]


def synchronize() -> None:
    """Wait for the kernels of a CUDA device, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def row(name: str, value: float, reference: float, unit: str, what: str) -> dict[str, Any]:
    """A row of bench.json.

    Args:
        name: The name of the benchmark.
        value: The result.
        reference: The result of the reference in the same process.
        unit: The unit of both.
        what: A description of what was measured.

    Returns:
        The row, with the ratio of value to reference.
    """
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": value / reference,
            "what": what}  # fmt: skip
