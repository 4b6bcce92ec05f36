"""Queries the memory available to a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ragaf_exp.compute.device import pick_device
from ragaf_exp.plan.budget import GIB


@dataclass(frozen=True)
class AvailableMemory:
    """Memory in GiB. what: its name in messages. cuda: whether it is GPU memory rather than main memory."""

    free: float
    total: float
    what: str
    cuda: bool = True


def query_available_memory(device: str) -> AvailableMemory:
    """The memory on the device that memory.device (auto, cpu or cuda) selects."""
    if pick_device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info()
        return AvailableMemory(_round_down(free), _round_down(total), f"{torch.cuda.get_device_name()}")
    main = psutil.virtual_memory()
    free, total = min([(main.available, main.total), *_limits()])
    return AvailableMemory(_round_down(free), _round_down(total), "main memory", cuda=False)


def gpu_of_size(gib: float) -> AvailableMemory:
    """A GPU with this much memory, all of it free."""
    return AvailableMemory(gib, gib, f"a card of {gib:g} GiB")


def _limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """(free, total) bytes of the control groups (version 2) of this process, set for example by SLURM or a container."""
    lines = own.read_text().splitlines() if own.exists() else []
    group = root / next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")
    limits = []
    for folder in (group, *group.parents):
        maximum, current = folder / "memory.max", folder / "memory.current"
        if maximum.is_file() and (limit := maximum.read_text().strip()) != "max":
            limits.append((max(0, int(limit) - int(current.read_text())), int(limit)))
        if folder == root:
            break
    return limits


def _round_down(size: float) -> float:
    return math.floor(size / GIB * 100) / 100
