"""memory.precision=auto: the number format in which this network's training steps take less time on this processor.

An instruction for bf16 does not make it faster: matrix products gain, convolutions and attention may lose more. So a
few steps are timed both ways before the first one of a run. The choice is kept in environment.json, and a run that
continues, perhaps on another processor, goes on in the same format.
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
ROUNDS = 3  # of a step each way; the least counts, so that the first, which sets kernels up, is none of them
CLEAR = 1.2  # times as fast: two rounds are enough
LONG_S = 5.0  # a round that took so long stays the only one
GAIN = 1.05  # bf16 must be so many times as fast: near a tie, float32 is what every start chooses


@dataclass(frozen=True)
class Choice:
    """The number format of a run, and what it was chosen by."""

    precision: str  # no or bf16
    device: str  # cpu or cuda
    seconds: dict[str, float] = field(default_factory=dict)  # of processor time per step; empty where none was timed

    def __str__(self) -> str:
        name = NAMES[self.precision]
        if not self.seconds:
            return f"precision: {name}, by what the {self.device} device has instructions for"
        other = next(key for key in FORMATS if key != self.precision)
        mine, theirs = (f"{self.seconds[key]:.2f}" for key in (self.precision, other))
        return (f"precision: {name}, as timed here: {mine} s of processor time a step, {theirs} in {NAMES[other]} "
                "(memory.precision= sets it)")  # fmt: skip


def settled(compute: Compute, places: list[RunFolder], step: Callable[[Compute], None]) -> Compute:
    """What a run with memory.precision=auto computes in: the recorded format, else the faster one, which is recorded.

    Args:
        compute: the run's device.
        places: folders whose environment.json may hold the choice, the first is the one to record it in.
        step: takes a training step's forward and backward pass in the given format, and changes nothing.

    Returns:
        The device with the number format, the same in all processes that share the run.
    """
    found = _agreed(next(filter(None, (_begun_in(place, compute.device) for place in places)), None))
    choice = Choice(found, compute.device.type) if found else chosen(compute.device, step)
    if found is None and places[0].is_main:
        log.info("%s", choice)
    for place in places:
        record(place, choice)
    return Compute(compute.device.type, choice.precision)


def chosen(device: torch.device, step: Callable[[Compute], None]) -> Choice:
    """By the instructions of a CUDA device, for whose bf16 memory is planned; by the clock on a processor."""
    native = not collectives.all_reduce_max(float(not has_bf16(device)))  # in all processes
    if device.type == "cuda" or not native:
        return Choice("bf16" if native else "no", device.type)
    seconds = timed(step)
    faster = seconds["no"] > GAIN * seconds["bf16"]
    return Choice("bf16" if faster else "no", device.type, {key: round(value, 4) for key, value in seconds.items()})


def timed(step: Callable[[Compute], None], clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Seconds of a step in each format, the mean over the processes; rounds alternate, and change their order.

    clock: processor time, which the machine's other users disturb least.
    """
    found: dict[str, list[float]] = {key: [] for key in FORMATS}
    for turn in range(ROUNDS):
        for key in FORMATS if turn % 2 == 0 else FORMATS[::-1]:
            began = clock()
            step(Compute("cpu", key))
            found[key].append(clock() - began)
        least = launch.mean(torch.tensor([min(values) for values in found.values()], dtype=torch.float64))
        clear = turn > 0 and float(least.max() / least.min()) > CLEAR
        if clear or collectives.all_reduce_max(sum(values[-1] for values in found.values())) > LONG_S:
            break
    return dict(zip(FORMATS, least.tolist(), strict=True))


def recorded(folder: RunFolder) -> str | None:
    """The number format that a run folder, perhaps a stranger's, names; None where it names none."""
    return _known(folder).get("precision")


def for_sampling(folder: RunFolder, device: str, precision: str) -> Compute:
    """What a trained run is sampled in: the format it was trained in where this device computes in it.

    Args:
        folder: of the run.
        device: auto, cpu or cuda.
        precision: memory.precision of its config.
    """
    here, known = pick_device(device), {}
    with suppress(UserError):  # a damaged environment.json is no reason not to sample
        known = _known(folder)
    if precision != "auto" or known.get("device") != here.type or not has_bf16(here):
        return Compute(here.type, pick_precision(precision, here))
    return Compute(here.type, known["precision"])


def record(folder: RunFolder, choice: Choice) -> None:
    """Add the choice to environment.json, which stays as it is where it holds one."""
    if folder.is_main and recorded(folder) is None:
        folder.check_owned()
        write_json(_path(folder), {**_environment(folder), "precision": asdict(choice)})


def _begun_in(folder: RunFolder, device: torch.device) -> str | None:
    """The format in which a run was begun; one of an earlier version, which recorded none, by the instructions."""
    return recorded(folder) or (pick_precision("auto", device) if folder.curves.exists() else None)


def _agreed(found: str | None) -> str | None:
    """The recorded format, in every process where any of them reads one."""
    number = int(collectives.all_reduce_max(float(FORMATS.index(found) + 1 if found else 0)))
    return FORMATS[number - 1] if number else None


def _known(folder: RunFolder) -> dict[str, Any]:
    found = _environment(folder).get("precision")
    return found if isinstance(found, dict) and found.get("precision") in FORMATS else {}


def _environment(folder: RunFolder) -> dict[str, Any]:
    path = _path(folder)
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: damaged (no mapping); restore it or train again")
    return content


def _path(folder: RunFolder) -> Path:
    return folder.path / "environment.json"
