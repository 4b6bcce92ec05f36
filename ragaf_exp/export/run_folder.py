"""Kind `run`: a run folder with the averaged weights alone, which every command of this suite reads."""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.safe_files import is_regular, read_bounded
from ragaf_exp.core.tensor_files import write_tensors
from ragaf_exp.export.kinds import CheckFailed, Entry, Options
from ragaf_exp.export.networks import check_file
from ragaf_exp.export.trained import Trained, TrainedStage
from ragaf_exp.runs.checkpoints import EMA_FILE, newest_whole, write_averaged

KIND, FOLDER = "run", "run"
FILES = ("config.yaml", "tokenizer.json", "status.json", "environment.json", "metrics.json", "metrics.jsonl")


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write the run folder.

    Args:
        trained: The run.
        out: The export's folder.
        options: half is used.

    Returns:
        Its entry.
    """
    folder = out / FOLDER
    folder.mkdir()
    for name in FILES:
        if is_regular(trained.folder.path / name):
            write_bytes(folder / name, read_bounded(trained.folder.path / name))
    for stage in trained.stages.values():
        _write_stage(folder, stage, options.half)
    note = "averaged weights, no optimizer state; for ragaf_exp.sample, eval and studio"
    return [Entry(KIND, FOLDER, note, lambda path: _check(path, trained, options.half))]


def _write_stage(folder: Path, stage: TrainedStage, half: bool) -> None:
    path = folder / "checkpoints" / stage.name / f"{stage.step:08d}"
    path.mkdir(parents=True)
    write_tensors(path / EMA_FILE, stage.own, {"format": "pt"}, half)
    write_averaged(path, stage.name, stage.step, dict(stage.sources))


def _check(folder: Path, trained: Trained, half: bool) -> str:
    for stage in trained.stages.values():
        path = newest_whole(folder / "checkpoints", stage.name, ("ema",))
        if path is None:
            raise CheckFailed(f"{folder}: no valid checkpoint of {stage.name}")
        check_file(path / EMA_FILE, stage.own, half)
    return "weights of every stage, bit by bit"
