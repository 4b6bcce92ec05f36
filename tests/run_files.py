"""Helpers of several tests: train a run's stages without evaluation, and read the files that it wrote."""

from __future__ import annotations

import json
from pathlib import Path

from ragaf_exp.experiments.training import Training


def train_all(training: Training) -> None:
    """Train every stage in order, as the runner does."""
    models = training.inherited()
    with training.started():
        for stage in training.stages:
            models[stage] = training.train(stage, models)


def rows(folder: Path) -> list[dict]:
    """Whole lines of metrics.jsonl, but for the rate, which is of the clock."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    parsed = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{k: v for k, v in row.items() if k != "rate"} for row in parsed]


def tensors(folder: Path) -> dict[str, bytes]:
    """The bytes of every checkpoint in a run folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in (folder / "checkpoints").rglob("*.safetensors")}
