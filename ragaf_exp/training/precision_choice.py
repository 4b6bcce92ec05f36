"""Selects the faster precision for the training steps of a network on this machine (memory.precision=auto).

A CPU with bf16 instructions is not always faster in bf16: matrix products gain, but convolutions and attention may lose
more. So a few steps are timed in both precisions before the first step of a run. The choice is recorded in
environment.json, and a resumed run keeps it, even on another CPU.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ragaf_exp.compute.device import NAMES, Compute, has_bf16, pick_device, pick_precision
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json, write_json
from ragaf_exp.distributed import collectives, launch
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)
FORMATS = ("no", "bf16")
ROUNDS = 3  # timed steps in each precision; the minimum counts, which excludes the set-up of kernels in the first
CLEAR = 1.2  # ratio of times from which two rounds are enough
LONG_S = 5.0  # no further round follows one that takes longer than this
GAIN = 1.05  # bf16 must be this many times as fast, so that every run selects float32 near a tie


@dataclass(frozen=True)
class Choice:
    """The precision of a run, and the timings that it was selected by."""

    precision: str  # no or bf16
    device: str  # cpu or cuda
    seconds: dict[str, float] = field(default_factory=dict)  # CPU time per step; empty if nothing was timed

    def __str__(self) -> str:
        name = NAMES[self.precision]
        if not self.seconds:
            return f"precision: {name}, by what the {self.device} device has instructions for"
        other = next(key for key in FORMATS if key != self.precision)
        mine, theirs = (f"{self.seconds[key]:.2f}" for key in (self.precision, other))
        return (f"precision: {name}, as timed here: {mine} s of processor time a step, {theirs} in {NAMES[other]} "
                "(memory.precision= sets it)")  # fmt: skip


def settled(compute: Compute, folders: list[RunFolder], step: Callable[[Compute], None]) -> Compute:
    """Select the precision of a run with memory.precision=auto: the recorded one, else the faster one, which it records.

    Args:
        compute: The device of the run.
        folders: Run folders whose environment.json may hold a choice. The choice is recorded in all of them.
        step: Runs the forward and backward pass of a training step in the given precision, without an update.

    Returns:
        The device with the precision, the same in all processes of the run.
    """
    earlier = _agreed(next(filter(None, (_precision_of_start(folder, compute.device) for folder in folders)), None))
    choice = Choice(earlier, compute.device.type) if earlier else chosen(compute.device, step)
    if earlier is None and folders[0].is_main:
        log.info("%s", choice)
    for folder in folders:
        record(folder, choice)
    return Compute(compute.device.type, choice.precision)


def chosen(device: torch.device, step: Callable[[Compute], None]) -> Choice:
    """Select by the instructions of a CUDA device, since memory is planned for them, and by timing on a CPU."""
    native = not collectives.all_reduce_max(float(not has_bf16(device)))  # in every process
    if device.type == "cuda" or not native:
        return Choice("bf16" if native else "no", device.type)
    seconds = timed(step)
    faster = seconds["no"] > GAIN * seconds["bf16"]
    return Choice("bf16" if faster else "no", device.type, {key: round(value, 4) for key, value in seconds.items()})


def timed(step: Callable[[Compute], None], clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Time a step in each precision, averaged over processes. Rounds alternate in order.

    Args:
        step: Runs a training step in the given precision.
        clock: CPU time by default, which other processes on the machine affect least.

    Returns:
        Precision -> seconds per step.
    """
    seconds: dict[str, list[float]] = {key: [] for key in FORMATS}
    for turn in range(ROUNDS):
        for key in FORMATS if turn % 2 == 0 else FORMATS[::-1]:
            began = clock()
            step(Compute("cpu", key))
            seconds[key].append(clock() - began)
        least = launch.mean(torch.tensor([min(values) for values in seconds.values()], dtype=torch.float64))
        clear = turn > 0 and float(least.max() / least.min()) > CLEAR
        if clear or collectives.all_reduce_max(sum(values[-1] for values in seconds.values())) > LONG_S:
            break
    return dict(zip(FORMATS, least.tolist(), strict=True))


def recorded(folder: RunFolder) -> str | None:
    """The precision recorded in a run folder; None if there is none. The folder need not be trusted."""
    return _known(folder).get("precision")


def for_sampling(folder: RunFolder, device: str, precision: str) -> Compute:
    """Select the precision for sampling a trained run: that of its training, if this device supports it.

    Args:
        folder: The run folder.
        device: auto, cpu or cuda.
        precision: memory.precision of its config.

    Returns:
        The device with the precision.
    """
    here, known = pick_device(device), {}
    with suppress(UserError):  # a damaged environment.json must not prevent sampling
        known = _known(folder)
    if precision != "auto" or known.get("device") != here.type or not has_bf16(here):
        return Compute(here.type, pick_precision(precision, here))
    return Compute(here.type, known["precision"])


def record(folder: RunFolder, choice: Choice) -> None:
    """Add the choice to environment.json, unless it holds one."""
    if folder.is_main and recorded(folder) is None:
        folder.check_owned()
        write_json(_path(folder), {**_environment(folder), "precision": asdict(choice)})


def _precision_of_start(folder: RunFolder, device: torch.device) -> str | None:
    """The precision of a run that has started. Earlier versions recorded none and selected it by instructions."""
    return recorded(folder) or (pick_precision("auto", device) if folder.curves.exists() else None)


def _agreed(precision: str | None) -> str | None:
    """The recorded precision in every process, if any of them could read it."""
    number = int(collectives.all_reduce_max(float(FORMATS.index(precision) + 1 if precision else 0)))
    return FORMATS[number - 1] if number else None


def _known(folder: RunFolder) -> dict[str, Any]:
    choice = _environment(folder).get("precision")
    return choice if isinstance(choice, dict) and choice.get("precision") in FORMATS else {}


def _environment(folder: RunFolder) -> dict[str, Any]:
    path = _path(folder)
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged (no mapping); restore it or train again")
    return content


def _path(folder: RunFolder) -> Path:
    return folder.path / "environment.json"
