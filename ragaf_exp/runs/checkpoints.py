"""Checkpoints as step folders of safetensors, written atomically; loading picks the newest valid one."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum, read_json, remove_folder, write_folder, write_json
from ragaf_exp.core.safe_files import is_regular, names_in

log = logging.getLogger(__name__)
SCHEMA = 1
PARTS = ("model", "ema", "optimizer")
EMA_FILE = "ema.safetensors"
STEP = re.compile(r"[0-9]{8}")  # a checkpoint's name


@dataclass(frozen=True)
class Checkpoint:
    """All state that the next step needs; data order and noise are functions of (seed, step)."""

    stage: str
    step: int  # optimizer steps done
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    sources: dict[str, dict[str, str]] = field(default_factory=dict)  # part -> source of frozen weights, not stored
    numbers: dict[str, float] = field(default_factory=dict)  # state of loss scaling, if any


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write folder/<stage>/<step>, then remove older checkpoints of the stage.

    Args:
        folder: The run's folder of checkpoints.
        checkpoint: What to write.
        keep: Number of checkpoints of the stage that remain.

    Returns:
        The checkpoint's folder.
    """
    path = folder / checkpoint.stage / f"{checkpoint.step:08d}"
    remove_folder(path)  # exists only if it was damaged
    write_folder(path, lambda temporary: _fill(temporary, checkpoint))
    steps = _steps(folder, checkpoint.stage)
    newer = steps.index(path)  # later steps are damaged, as training continued from before them: not worth keeping
    for obsolete in (*steps[:newer], *steps[newer + keep :]):
        remove_folder(obsolete)
    return path


def prune(folder: Path, newest: Checkpoint, keep: int) -> None:
    """Finish the cleanup of an interrupted save: remove older and half-written checkpoints of a stage.

    Args:
        folder: The run's folder of checkpoints.
        newest: The newest valid checkpoint of its stage.
        keep: Number of checkpoints up to `newest` that remain.
    """
    for half in (folder / newest.stage).glob("." + 8 * "[0-9]" + ".tmp"):
        remove_folder(half)
    older = [path for path in _steps(folder, newest.stage) if int(path.name) <= newest.step]
    for obsolete in older[keep:]:
        remove_folder(obsolete)


def load_newest(folder: Path, stage: str, parts: tuple[str, ...] = PARTS) -> Checkpoint | None:
    """Load the newest valid checkpoint of a stage; each damaged one is skipped with a warning.

    Args:
        folder: The run's folder of checkpoints.
        stage: The stage's name.
        parts: The parts to load, of PARTS; the others stay empty. With none, a checkpoint must hold all of them.

    Returns:
        The checkpoint, or None if there is none.
    """
    for path in _steps(folder, stage):
        fault = _fault(path, parts or PARTS)
        if fault is None:
            state = read_json(path / "state.json")
            tensors = {part: load_file(path / f"{part}.safetensors") if part in parts else {} for part in PARTS}
            extras = {key: state.get(key, {}) for key in ("sources", "numbers")}
            return Checkpoint(stage, state["step"], **tensors, **extras)
        log.warning("%s: %s; falling back to the checkpoint before it", path, fault)
    return None


def newest_whole(folder: Path, stage: str, parts: tuple[str, ...] = PARTS) -> Path | None:
    """Return the folder of a stage's newest valid checkpoint.

    Args:
        folder: The run's folder of checkpoints.
        stage: The stage's name.
        parts: The parts that it must hold, of PARTS. A run that was exported holds the averaged weights alone.

    Returns:
        The checkpoint's folder, or None if there is none.
    """
    return next((path for path in _steps(folder, stage) if _fault(path, parts) is None), None)


def newest_checksums(folder: Path) -> dict[str, str]:
    """Return stage -> sha256 of the EMA weights of its newest valid checkpoint."""
    checksums = {}
    for stage in names_in(folder):
        path = newest_whole(folder, stage, ("ema",))
        if path is not None:
            checksums[stage] = read_json(path / "state.json")["sha256"][EMA_FILE]
    return checksums


def _fill(path: Path, checkpoint: Checkpoint) -> None:
    for part in PARTS:
        tensors = {k: v.detach().contiguous().cpu() for k, v in getattr(checkpoint, part).items()}
        _write(path / f"{part}.safetensors", tensors)
    sums = {f"{part}.safetensors": checksum(path / f"{part}.safetensors") for part in PARTS}
    state = {"schema": SCHEMA, "stage": checkpoint.stage, "step": checkpoint.step, "sha256": sums}
    if checkpoint.sources:
        state["sources"] = checkpoint.sources
    if checkpoint.numbers:
        state["numbers"] = checkpoint.numbers
    write_json(path / "state.json", state)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # carries the system's error number only in its text
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _steps(folder: Path, stage: str) -> list[Path]:
    """List the step folders of a stage, newest first."""
    return [folder / stage / name for name in reversed(names_in(folder / stage)) if STEP.fullmatch(name)]


def write_averaged(path: Path, stage: str, step: int, sources: dict[str, dict[str, str]]) -> None:
    """Write the state.json of a checkpoint of the averaged weights alone, which can be sampled but not trained further.

    Args:
        path: The checkpoint's folder, which holds ema.safetensors.
        stage: The stage's name.
        step: Optimizer steps done.
        sources: Part -> source of frozen weights, not stored.
    """
    state = {"schema": SCHEMA, "stage": stage, "step": step, "sha256": {EMA_FILE: checksum(path / EMA_FILE)}}
    write_json(path / "state.json", state | ({"sources": sources} if sources else {}))


def _fault(path: Path, parts: tuple[str, ...]) -> str | None:
    """Describe the damage of a checkpoint, or the lack of one of these parts; None if it is valid."""
    try:
        state = read_json(path / "state.json")
        schema, step, sums = state["schema"], state["step"], dict(state["sha256"])
        fits = all(isinstance(state.get(key, {}), dict) for key in ("sources", "numbers"))
    except (UserError, KeyError, TypeError, ValueError):
        return "damaged (no readable state.json)"
    if isinstance(schema, int) and schema > SCHEMA:
        raise UserError(f"{path}: schema {schema} is newer than this version's {SCHEMA}; update ragaf_exp")
    known = {f"{part}.safetensors" for part in PARTS}
    if not fits or step != int(path.name) or EMA_FILE not in sums or not set(sums) <= known:
        return "damaged (state.json is not what was written)"
    if absent := [part for part in parts if f"{part}.safetensors" not in sums]:
        return f"holds averaged weights for sampling, but no {absent[0]} to train further"
    for name, expected in sums.items():
        if not is_regular(path / name) or checksum(path / name) != expected:
            return f"damaged ({name} is not what was written)"
        if not _readable(path / name):
            return f"damaged ({name} is no safetensors file)"
    return None


def _readable(path: Path) -> bool:
    """Whether a file's header fits its length, which a checksum by an untrusted author does not prove."""
    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, ValueError):
        return False
