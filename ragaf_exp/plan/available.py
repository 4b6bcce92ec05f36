"""How much memory there is to plan for."""

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
    """Memory in GiB. what: whose it is, for people. cuda: of a card, or else main memory."""

    free: float
    total: float
    what: str
    cuda: bool = True


def query_available_memory(device: str) -> AvailableMemory:
    """What is free now where a run with this memory.device (auto, cpu or cuda) would be."""
    if pick_device(device).type == "cuda":
        free, total = torch.cuda.mem_get_info()
        return AvailableMemory(_round_down(free), _round_down(total), f"{torch.cuda.get_device_name()}")
    main = psutil.virtual_memory()
    free, total = min([(main.available, main.total), *_limits()])
    return AvailableMemory(_round_down(free), _round_down(total), "main memory", cuda=False)


def gpu_of_size(gib: float) -> AvailableMemory:
    """A card that isn't here, all of it free."""
    return AvailableMemory(gib, gib, f"a card of {gib:g} GiB")


def _limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[tuple[int, int]]:
    """(free, total) bytes of the control groups (version 2) that this process is in, as a job's or a container's."""
    lines = own.read_text().splitlines() if own.exists() else []
    group = root / next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")
    found = []
    for folder in (group, *group.parents):
        most, now = folder / "memory.max", folder / "memory.current"
        if most.is_file() and (limit := most.read_text().strip()) != "max":
            found.append((max(0, int(limit) - int(now.read_text())), int(limit)))
        if folder == root:
            break
    return found


def _round_down(size: float) -> float:
    return math.floor(size / GIB * 100) / 100
