"""memory=auto: selects the largest profile and micro-batch whose plan fits the free memory, or those of a started run."""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import AUTO, compose_config, config_hash
from ragaf_exp.config.stages import trained
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan.available import AvailableMemory, query_available_memory
from ragaf_exp.plan.budget import GIB, needs
from ragaf_exp.plan.predict import micro_batch, phases_of
from ragaf_exp.plan.unloaded import step_items

log = logging.getLogger(__name__)
PROFILES = ("32gb", "16gb", "8gb", "4gb")  # for a GPU, the largest first
CPU = "cpu"
Candidate = tuple[str, DictConfig, list[int]]
BUDGET, ACCUMULATE = "memory.budget", "stage.accumulate"


def select_profile(overrides: list[str], available: AvailableMemory | None = None) -> list[str]:
    """Replace memory=auto by a profile with its micro-batch and budget, and log the choice.

    Args:
        overrides: Hydra overrides with memory=auto.
        available: The memory to plan for. None: this machine's free memory; a run of these overrides that has already
            started then keeps its profile, whatever is free now.

    Returns:
        The overrides with explicit memory settings.

    Raises:
        UserError: If no profile fits, or several processes would each choose.
    """
    rest = [override for override in overrides if override != AUTO]
    given = {_key(override) for override in rest}
    if int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1"))) > 1:
        raise UserError(f"{AUTO}: each of several processes would choose for itself; name a profile (python -m "
                        f"ragaf_exp.plan {AUTO} suggests one)")  # fmt: skip
    memory = available or query_available_memory(compose_config([*rest, f"memory={CPU}"]).memory.device)
    candidates = list(_candidates(rest, memory))
    started = None if available else _started(candidates, memory)
    name, cfg, reason = started or _fitting(candidates, memory, BUDGET in given)
    log.info("%s: %s, %d items at once: %s", AUTO, name, micro_batch(cfg), reason)
    settings = {"memory": name, ACCUMULATE: cfg.stage.accumulate, BUDGET: cfg.memory.budget,
                "memory.device": cfg.memory.device}  # fmt: skip
    return [*rest, *(f"{key}={value}" for key, value in settings.items() if key not in given)]


def _candidates(rest: list[str], memory: AvailableMemory) -> Iterator[Candidate]:
    """Profiles with their configs and allowed accumulation steps, in order of preference.

    Only the smallest profile may use a smaller micro-batch than its default.
    """
    given = {_key(override) for override in rest}
    for name in (*PROFILES, CPU) if memory.cuda else (CPU,):
        device = [f"memory.device={CPU}"] if name == CPU and "memory.device" not in given else []
        cfg = compose_config([*rest, f"memory={name}", *device])
        own, batch = cfg.stage.accumulate, step_items(cfg)
        largest = batch if name in (PROFILES[-1], CPU) else own
        adjustable = ACCUMULATE not in given and not cfg.memory.step_in_backward
        yield name, cfg, [n for n in range(1, largest + 1) if batch % n == 0] if adjustable else [own]


def _started(candidates: list[Candidate], memory: AvailableMemory) -> tuple[str, DictConfig, str] | None:
    """A run of these overrides that has already started and whose budget this machine has."""
    for name, cfg, accumulations in candidates:
        for adjusted in (_with_accumulation(cfg, steps) for steps in accumulations):
            folder = Path(cfg.runs).absolute() / cfg.name / config_hash(adjusted)
            saved = folder / "config.yaml"
            if saved.exists() and OmegaConf.load(saved).memory.budget <= memory.total:
                return name, adjusted, f"{folder} was started with it and continues"
    return None


def _fitting(candidates: list[Candidate], memory: AvailableMemory, budget: bool) -> tuple[str, DictConfig, str]:
    """The first candidate whose plan fits. budget: whether memory.budget is a limit, too."""
    rejected = []
    for name, cfg, accumulations in candidates:
        usable = query_available_memory(CPU) if memory.cuda and name == CPU else memory
        limit = min(usable.free, cfg.memory.budget) if budget else usable.free
        largest = (trained(cfg)[-1].name,)
        first = _peak(_with_accumulation(cfg, accumulations[-1]), largest)
        if first <= limit:
            start = bisect_left(accumulations, True, key=lambda n: _peak(_with_accumulation(cfg, n), largest) <= limit)
            for steps in accumulations[start:]:
                adjusted = _with_accumulation(cfg, steps)
                if (peak := _peak(adjusted, phases_of(cfg))) <= limit:
                    adjusted.memory.budget = limit
                    no_gpu = [] if usable.cuda or memory.cuda else ["there is no CUDA device"]
                    fits = f"{peak:.2f} GiB are predicted and {limit:.2f} are free ({usable.what})"
                    return name, adjusted, "; ".join([fits, *no_gpu, *rejected])
                first = peak
        rejected.append(f"{name} would take {first:.2f}")
    raise UserError(f"{AUTO}: nothing fits the {memory.free:.2f} GiB of {memory.what} that are free ({', '.join(rejected)}"
                    "); free some, or name a profile and memory.force=true")  # fmt: skip


def _peak(cfg: DictConfig, phases: tuple[str, ...]) -> float:
    return max(need.total for need in needs(cfg, phases)) / GIB


def _with_accumulation(cfg: DictConfig, accumulate: int) -> DictConfig:
    other = cfg.copy()
    other.stage.accumulate = accumulate
    return other


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+")
