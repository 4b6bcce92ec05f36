"""Compares an image of the exported pipeline with the run's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ragaf_exp.assembly.model import unit_of
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resident import release
from ragaf_exp.export.kinds import CheckFailed
from ragaf_exp.export.pipeline import pipeline_class
from ragaf_exp.export.sampling import IMAGE, MASK, SKETCH, Call, Progress
from ragaf_exp.export.stage import RagafStage
from ragaf_exp.export.streamed import Reading, streamed_model
from ragaf_exp.export.trained import Trained, TrainedStage
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.models.loading.sources import share_identical_weights
from ragaf_exp.models.model import Model

SIDE, STEPS, SEED = 64, 2, 0  # pixels at least, so that networks for large images are checked in seconds
PROMPT = "a red circle"
DEVICE = "cpu"  # where the same network gives the same bits in every process


def check_image(folder: Path, trained: Trained, precision: str, half: bool, sources: Mapping[str, str]) -> str:
    """Sample one image with the run and with its export.

    Args:
        folder: The export's folder.
        trained: The run.
        precision: no, bf16 or fp16: the precision of both.
        half: Weights were stored as float16, so that images may differ slightly.
        sources: Name of a source that the export names -> folder or hub id.

    Returns:
        What was compared.

    Raises:
        CheckFailed: The images differ.
    """
    ours, theirs, side = _images(folder, trained, precision, sources, Reading(copied=False))
    if not half and not np.array_equal(ours, theirs):  # files may lie differently in memory, which copies do not
        ours, theirs, side = _images(folder, trained, precision, sources, Reading(copied=True))
    difference = int(np.abs(ours.astype(int) - theirs.astype(int)).max())
    if difference and not half:
        raise CheckFailed(f"{folder}: an image differs from the run's by {difference} of 255")
    return f"an image of {side}x{side} pixels differs from the run's by at most {difference} of 255"


def _images(
    folder: Path, trained: Trained, precision: str, sources: Mapping[str, str], reading: Reading
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the run's image, the export's, and their side in pixels; memory holds one model at a time."""
    ours, side = _of_run(trained, precision, reading)
    release()
    stages = {name: RagafStage.streamed(folder / name, sources, reading) for name in trained.stages}
    pipeline = pipeline_class(stages)(**stages)
    return ours, _sample(pipeline.last.parts, pipeline._sampler, precision, side), side


def _of_run(trained: Trained, precision: str, reading: Reading) -> tuple[np.ndarray, int]:
    models = {name: _model(trained, stage, reading) for name, stage in trained.stages.items()}
    for start, model in pairwise(models.values()):
        share_identical_weights(start, model)
    unit = unit_of(trained.cfg, models[trained.last.name])
    side = min(trained.cfg.data.size, -(-SIDE // unit) * unit)

    def sampler(call: Call) -> Pipeline:
        return make_pipeline(call.parts.cfg, call.parts, models, call.compute)

    return _sample(trained.parts, sampler, precision, side), side


def _model(trained: Trained, stage: TrainedStage, reading: Reading) -> Model:
    for name, tensor in stage.own.items():
        values = tensor.load() if tensor.dtype.is_floating_point and tensor.size else torch.zeros(1)
        if not all(bound.isfinite() for bound in torch.aminmax(values)):
            raise UserError(f"{trained.folder.checkpoints / stage.name}: its weights are NaN or infinite ({name}); train "
                            "this stage again")  # fmt: skip
    return streamed_model(stage.own, reading, trained.parts, stage.name, stage.sources)


def _sample(parts: Parts, sampler: Callable[[Call], Pipeline], precision: str, side: int) -> np.ndarray:
    """(H,W,3) uint8."""
    pictures: dict[str, Any] = dict(pictures_for(parts, side))
    if MASK in pictures:
        pictures[MASK] = (pictures[MASK] * 255).astype(np.uint8)
    task = next(iter(parts.task.choices), "")
    call = Call(parts, {"steps": STEPS}, None, SEED, precision, DEVICE, task)
    bar = SimpleNamespace(n=0, total=0, update=lambda: None)
    progress = Progress(SimpleNamespace(_interrupt=False), None, bar)
    sketch = drawing_of_boxes(side, 1) if SKETCH in parts.task.columns else None
    final, _ = call.run(sampler, PROMPT, sketch, None, pictures, (side, side), "light", progress)
    return final[0]


def drawing_of_boxes(side: int, count: int) -> np.ndarray:
    """Draw nested squares as strokes (side,side) float32 in [0,1], 1 = stroke."""
    strokes = np.zeros((side, side), np.float32)
    for number in range(1, count + 1):
        low = number * side // (2 * count + 2)
        high = side - low - 1
        strokes[low : high + 1, [low, high]] = strokes[[low, high], low : high + 1] = 1
    return strokes


def pictures_for(parts: Parts, side: int) -> dict[str, np.ndarray]:
    """Make plain pictures (side,side,3) uint8 for the columns of a run's task, and a mask (side,side) of its middle."""
    columns = parts.task.columns
    pictures: dict[str, np.ndarray] = {
        name: np.full((side, side, 3), 90, np.uint8) for name in columns if columns[name] == IMAGE
    }
    if MASK in pictures:
        inner = np.ones((side // 2, side // 2), np.float32)
        pictures[MASK] = np.pad(inner, ((side - side // 2) // 2, side - side // 2 - (side - side // 2) // 2))
    return pictures
