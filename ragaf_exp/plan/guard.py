"""Before a run: does its plan fit the device? While it runs: no more than its budget."""

from __future__ import annotations

import logging

import torch
from omegaconf import DictConfig

from ragaf_exp.compute.device import pick_device
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan.budget import CONTEXT, GIB, Need, advice, needs

log = logging.getLogger(__name__)


def capacity(cfg: DictConfig) -> float | None:
    """GiB that the run may take: of its budget and its device the smaller; None where neither sets a limit."""
    limits = [cfg.memory.budget] if cfg.memory.budget > 0 else []
    if pick_device(cfg.memory.device).type == "cuda":
        limits.append(torch.cuda.get_device_properties(0).total_memory / GIB)
    return min(limits, default=None)


def check(cfg: DictConfig) -> None:
    """UserError where the plan exceeds what the run may take, unless memory.force; costs nothing without a limit."""
    limit = capacity(cfg)
    if limit is None or cfg.memory.force or cfg.memory.shard:  # of a share of the model there is no plan
        return
    found = needs(cfg)
    if any(need.total > limit * GIB for need in found):
        raise UserError(refusal(cfg, found, limit))


def refusal(cfg: DictConfig, found: list[Need], limit: float) -> str:
    """One line: what is too much, and what would make it fit."""
    worst = max(found, key=lambda need: need.total)
    known = advice(cfg, int(limit * GIB), found)
    if any(a.fits for a in known):
        mend = " or ".join(a.override for a in known[:3]) + " would make it fit"
    else:
        mend = "no saver makes it fit" + "".join(f": {a.override} come to {a.total / GIB:.2f}" for a in known)
    return (f"memory: {worst.peak.phase} is predicted to take {worst.total / GIB:.2f} GiB of {limit:.2f}; {mend} "
            "(python -m ragaf_exp.plan says more; memory.force=true starts anyway)")  # fmt: skip


def cap(cfg: DictConfig) -> None:
    """Let this process have no more of a CUDA device than its budget, so that a large card behaves as a small one."""
    if cfg.memory.budget > 0 and cfg.memory.enforce and pick_device(cfg.memory.device).type == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        share = min(1.0, max(0.01, (cfg.memory.budget - CONTEXT) / total))  # the allocator does not count the context
        torch.cuda.set_per_process_memory_fraction(share)
        log.info("memory: capped at %.2f GiB of this device's %.2f", cfg.memory.budget, total)
