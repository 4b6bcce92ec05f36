"""memory=auto: the largest profile and micro-batch whose plan fits what is free, or the run that began with one."""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import AUTO, compose_config, config_hash
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan.available import AvailableMemory, query_available_memory
from ragaf_exp.plan.budget import GIB, needs
from ragaf_exp.plan.predict import micro_batch, phases_of

log = logging.getLogger(__name__)
PROFILES = ("32gb", "16gb", "8gb", "4gb")  # for a card, the largest first
CPU = "cpu"
Candidate = tuple[str, DictConfig, list[int]]
BUDGET, PACE = "memory.budget", "stage.accumulate"


def chosen(words: list[str], room: AvailableMemory | None = None) -> list[str]:
    """The overrides with a profile, its micro-batch and budget in place of memory=auto; says which in one line.

    room: else what this machine has free; then a run of these overrides that has begun goes on as it began, however
    much is free now. UserError where nothing fits, or where several processes would each choose for themselves.
    """
    rest = [word for word in words if word != AUTO]
    given = {_key(word) for word in rest}
    if int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1"))) > 1:
        raise UserError(f"{AUTO}: each of several processes would choose for itself; name a profile (python -m "
                        f"ragaf_exp.plan {AUTO} says which)")  # fmt: skip
    space = room or query_available_memory(compose_config([*rest, f"memory={CPU}"]).memory.device)
    candidates = list(_candidates(rest, space))
    found = None if room else _begun(candidates, space)
    name, cfg, why = found or _fitting(candidates, space, BUDGET in given)
    log.info("%s: %s, %d items at once: %s", AUTO, name, micro_batch(cfg, COARSE), why)
    more = {"memory": name, PACE: cfg.stage.accumulate, BUDGET: cfg.memory.budget, "memory.device": cfg.memory.device}
    return [*rest, *(f"{key}={value}" for key, value in more.items() if key not in given)]


def _candidates(rest: list[str], space: AvailableMemory) -> Iterator[Candidate]:
    """Profiles with their configs and the accumulations that they may have, in order of preference.

    A profile counts with at least the micro-batch of its own; only the smallest may go below that.
    """
    given = {_key(word) for word in rest}
    for name in (*PROFILES, CPU) if space.cuda else (CPU,):
        aside = [f"memory.device={CPU}"] if name == CPU and "memory.device" not in given else []
        cfg = compose_config([*rest, f"memory={name}", *aside])
        own, batch = cfg.stage.accumulate, cfg.stage.batch
        most = batch if name in (PROFILES[-1], CPU) else own
        free = PACE not in given and not cfg.memory.step_in_backward
        yield name, cfg, [n for n in range(1, most + 1) if batch % n == 0] if free else [own]


def _begun(candidates: list[Candidate], space: AvailableMemory) -> tuple[str, DictConfig, str] | None:
    """A run of these overrides that this machine, or one with as much memory, has begun."""
    for name, cfg, paces in candidates:
        for paced in (_with_accumulation(cfg, pace) for pace in paces):
            folder = Path(cfg.runs).absolute() / cfg.name / config_hash(paced)
            kept = folder / "config.yaml"
            if kept.exists() and OmegaConf.load(kept).memory.budget <= space.total:
                return name, paced, f"so {folder} began, which goes on"
    return None


def _fitting(candidates: list[Candidate], space: AvailableMemory, budget: bool) -> tuple[str, DictConfig, str]:
    """The first candidate whose plan fits. budget: whether the config's own is a limit, too."""
    said = []
    for name, cfg, paces in candidates:
        here = query_available_memory(CPU) if space.cuda and name == CPU else space
        limit = min(here.free, cfg.memory.budget) if budget else here.free
        heavy = (REFINE,) if REFINE in cfg.stage.run else (COARSE,)
        first = _peak(_with_accumulation(cfg, paces[-1]), heavy)
        if first <= limit:
            start = bisect_left(paces, True, key=lambda n: _peak(_with_accumulation(cfg, n), heavy) <= limit)
            for pace in paces[start:]:
                paced = _with_accumulation(cfg, pace)
                if (peak := _peak(paced, phases_of(cfg))) <= limit:
                    paced.memory.budget = limit
                    none = [] if here.cuda or space.cuda else ["there is no CUDA device"]
                    fits = f"{peak:.2f} GiB are predicted and {limit:.2f} are free ({here.what})"
                    return name, paced, "; ".join([fits, *none, *said])
                first = peak
        said.append(f"{name} would take {first:.2f}")
    raise UserError(f"{AUTO}: nothing fits the {space.free:.2f} GiB of {space.what} that are free ({', '.join(said)}); "
                    "free some, or name a profile and memory.force=true")  # fmt: skip


def _peak(cfg: DictConfig, phases: tuple[str, ...]) -> float:
    return max(need.total for need in needs(cfg, phases)) / GIB


def _with_accumulation(cfg: DictConfig, accumulate: int) -> DictConfig:
    other = cfg.copy()
    other.stage.accumulate = accumulate
    return other


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")
