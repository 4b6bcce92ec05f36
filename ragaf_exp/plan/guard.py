"""Refuses a run whose plan exceeds the device, and caps the memory of one that runs."""

from __future__ import annotations

import logging

import torch
from omegaconf import DictConfig

from ragaf_exp.compute.device import pick_device
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan.budget import CONTEXT, GIB, Need, advice, needs

log = logging.getLogger(__name__)


def capacity(cfg: DictConfig) -> float | None:
    """GiB that the run may use, the smaller of memory.budget and the device; None without a limit."""
    limits = [cfg.memory.budget] if cfg.memory.budget > 0 else []
    if pick_device(cfg.memory.device).type == "cuda":
        limits.append(torch.cuda.get_device_properties(0).total_memory / GIB)
    return min(limits, default=None)


def check(cfg: DictConfig) -> None:
    """Raise UserError if the plan exceeds the limit, unless memory.force is set; returns at once without a limit."""
    limit = capacity(cfg)
    if limit is None or cfg.memory.force or cfg.memory.shard:  # sharded models are not planned
        return
    current = needs(cfg)
    if any(need.total > limit * GIB for need in current):
        raise UserError(refusal(cfg, current, limit))


def refusal(cfg: DictConfig, current: list[Need], limit: float) -> str:
    """A one-line error: the phase that exceeds the limit, and what makes it fit.

    Args:
        cfg: The config of the run.
        current: The needs of all its phases.
        limit: The memory that it may use, in GiB.

    Returns:
        The message.
    """
    worst = max(current, key=lambda need: need.total)
    savers = advice(cfg, int(limit * GIB), current)
    if any(a.fits for a in savers):
        fix = " or ".join(a.override for a in savers[:3]) + " would make it fit"
    else:
        fix = "no saver makes it fit" + "".join(f": {a.override} still needs {a.total / GIB:.2f}" for a in savers)
    return (f"memory: {worst.peak.phase} is predicted to take {worst.total / GIB:.2f} GiB of {limit:.2f}; {fix} "
            "(details: python -m ragaf_exp.plan; memory.force=true starts anyway)")  # fmt: skip


def cap(cfg: DictConfig) -> None:
    """Limit this process to memory.budget on a CUDA device, so that a large GPU behaves like a small one."""
    if cfg.memory.budget > 0 and cfg.memory.enforce and pick_device(cfg.memory.device).type == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory / GIB
        share = min(1.0, max(0.01, (cfg.memory.budget - CONTEXT) / total))  # the allocator does not count the context
        torch.cuda.set_per_process_memory_fraction(share)
        log.info("memory: capped at %.2f GiB of this device's %.2f", cfg.memory.budget, total)
