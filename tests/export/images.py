"""The image that a run itself samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragaf_exp.data.loader import collate
from ragaf_exp.inference.examples import as_example
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder

PROMPT = "a red circle"


def of_run(run: Path, strokes: np.ndarray, seed: int, prompt: str = PROMPT) -> np.ndarray:
    """(H,W,3) uint8."""
    folder, cfg = RunFolder.read(run)
    cfg.seed = seed
    parts, pipeline = load_run(folder, cfg)
    return pipeline(collate([as_example(strokes, prompt, parts, strokes.shape)])).to_images().final[0]


def difference(one: np.ndarray, other: object) -> int:
    """Largest difference of two uint8 images."""
    return int(np.abs(one.astype(int) - np.asarray(other).astype(int)).max())
