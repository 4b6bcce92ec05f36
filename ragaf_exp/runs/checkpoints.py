"""Checkpoints: step folders of safetensors, written whole or not at all, the newest valid one found by itself."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum, read_json, remove_folder, write_folder, write_json
from ragaf_exp.core.safe_files import is_regular, names_in

log = logging.getLogger(__name__)
SCHEMA = 1
PARTS = ("model", "ema", "optimizer")
STEP = re.compile(r"[0-9]{8}")  # a checkpoint's name


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a step hands to the next; data order and noise are functions of (seed, step)."""

    stage: str
    step: int  # optimizer steps done
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    sources: dict[str, dict[str, str]] = field(default_factory=dict)  # part -> whose weights are not written again
    numbers: dict[str, float] = field(default_factory=dict)  # of loss scaling, where there is any


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write folder/<stage>/<step>, then remove all but the newest `keep` of the stage."""
    place = folder / checkpoint.stage / f"{checkpoint.step:08d}"
    remove_folder(place)  # only ever one that was found damaged
    write_folder(place, lambda temporary: _fill(temporary, checkpoint))
    steps = _steps(folder, checkpoint.stage)
    newer = steps.index(place)  # damaged, as training went on from before them: they must not count as kept
    for passed in (*steps[:newer], *steps[newer + keep :]):
        remove_folder(passed)
    return place


def prune(folder: Path, newest: Checkpoint, keep: int) -> None:
    """What a kill kept a save from: all but the `keep` latest up to `newest` go, and what was half written.

    newest: the newest whole checkpoint of its stage.
    """
    for half in (folder / newest.stage).glob("." + 8 * "[0-9]" + ".tmp"):
        remove_folder(half)
    older = [place for place in _steps(folder, newest.stage) if int(place.name) <= newest.step]
    for passed in older[keep:]:
        remove_folder(passed)


def load_newest(folder: Path, stage: str, parts: tuple[str, ...] = PARTS) -> Checkpoint | None:
    """The newest whole checkpoint of a stage, None where there is none; damaged ones are named and passed over."""
    for place in _steps(folder, stage):
        fault = _fault(place)
        if fault is None:
            state = read_json(place / "state.json")
            tensors = {part: load_file(place / f"{part}.safetensors") if part in parts else {} for part in PARTS}
            held = {key: state.get(key, {}) for key in ("sources", "numbers")}
            return Checkpoint(stage, state["step"], **tensors, **held)
        log.warning("%s: %s; falling back to the checkpoint before it", place, fault)
    return None


def newest_whole(folder: Path, stage: str) -> Path | None:
    """The folder of a stage's newest whole checkpoint, None where there is none."""
    return next((place for place in _steps(folder, stage) if _fault(place) is None), None)


def newest_checksums(folder: Path) -> dict[str, str]:
    """Stage -> sha256 of the EMA weights of its newest whole checkpoint."""
    whole = {}
    for stage in (COARSE, REFINE):
        place = newest_whole(folder, stage)
        if place is not None:
            whole[stage] = read_json(place / "state.json")["sha256"]["ema.safetensors"]
    return whole


def _fill(place: Path, checkpoint: Checkpoint) -> None:
    for part in PARTS:
        tensors = {k: v.detach().contiguous().cpu() for k, v in getattr(checkpoint, part).items()}
        _write(place / f"{part}.safetensors", tensors)
    sums = {f"{part}.safetensors": checksum(place / f"{part}.safetensors") for part in PARTS}
    state = {"schema": SCHEMA, "stage": checkpoint.stage, "step": checkpoint.step, "sha256": sums}
    if checkpoint.sources:
        state["sources"] = checkpoint.sources
    if checkpoint.numbers:
        state["numbers"] = checkpoint.numbers
    write_json(place / "state.json", state)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # a system's error is only in its text
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def _steps(folder: Path, stage: str) -> list[Path]:
    """Step folders of a stage, the newest first."""
    return [folder / stage / name for name in reversed(names_in(folder / stage)) if STEP.fullmatch(name)]


def _fault(place: Path) -> str | None:
    """What is wrong with a checkpoint, None where it is whole."""
    try:
        state = read_json(place / "state.json")
        schema, step, sums = state["schema"], state["step"], dict(state["sha256"])
        fits = all(isinstance(state.get(key, {}), dict) for key in ("sources", "numbers"))
    except (UserError, KeyError, TypeError, ValueError):
        return "damaged (no readable state.json)"
    if isinstance(schema, int) and schema > SCHEMA:
        raise UserError(f"{place}: schema {schema} is newer than this version's {SCHEMA}; update ragaf_exp")
    if not fits or step != int(place.name) or set(sums) != {f"{part}.safetensors" for part in PARTS}:
        return "damaged (state.json is not what was written)"
    for name, wanted in sums.items():
        if not is_regular(place / name) or checksum(place / name) != wanted:
            return f"damaged ({name} is not what was written)"
        if not _readable(place / name):
            return f"damaged ({name} is no safetensors file)"
    return None


def _readable(path: Path) -> bool:
    """Whether a file's header fits its length: a checksum says nothing of it where a stranger wrote both."""
    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, ValueError):
        return False
