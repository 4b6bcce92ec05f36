"""From the predicted peak of tensors to the memory that a CUDA device needs, and the savers that make a plan fit."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.stages import chain
from ragaf_exp.plan.predict import Peak, in_order, phases_of, predict
from ragaf_exp.plan.savers import FIRST, LATER, PHASES, SAVERS, TRAINING, applied, precision_of

GIB = 2**30
SEGMENT = 2 * 2**20  # CUDA's allocator requests multiples of it from the device
CONTEXT = 0.45  # GiB: CUDA's context and the libraries' kernels, outside the allocator; an assumption
KERNELS = 0.25  # GiB: workspaces of cuDNN and cuBLAS; an assumption
FRAGMENTS = 0.05  # share of activations and workspace lost to fragmentation; an assumption
CHANGING = ("activations", "workspace", "batch")


@dataclass(frozen=True)
class Need:
    """The device memory that one phase needs, in bytes."""

    peak: Peak

    @property
    def margin(self) -> int:
        """Rounding to segments, fragmentation, kernel workspaces and CUDA's context."""
        changing = sum(self.peak.parts.get(kind, 0) for kind in CHANGING)
        allocated = self.peak.bytes + FRAGMENTS * changing + KERNELS * GIB
        return math.ceil(allocated / SEGMENT) * SEGMENT + int(CONTEXT * GIB) - self.peak.bytes

    @property
    def total(self) -> int:
        return self.peak.bytes + self.margin

    def facts(self) -> dict[str, Any]:
        parts = {kind: round(size / GIB, 4) for kind, size in self.peak.parts.items()}
        return {"phase": self.peak.phase, "micro_batch": self.peak.micro_batch, "total_gib": round(self.total / GIB, 3),
                "tensors_gib": round(self.peak.bytes / GIB, 3), "margin_gib": round(self.margin / GIB, 3),
                "parts_gib": parts}  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """Overrides that save memory. total: the largest need of any phase with them, in bytes. cost: in words."""

    override: str
    total: int
    fits: bool
    cost: str


def needs(cfg: DictConfig, phases: tuple[str, ...] | None = None) -> list[Need]:
    """The CUDA memory needed by every phase of the config's run, or by the named phases."""
    evaluating, training = OmegaConf.to_yaml(cfg), OmegaConf.to_yaml(OmegaConf.merge(cfg, {"eval": {"batch": 1}}))
    trains = {phase for phase, kind in kinds_of(cfg).items() if kind in TRAINING}  # eval.batch does not affect these
    return [_need(training if phase in trains else evaluating, precision_of(cfg), phase)
            for phase in in_order(cfg, phases or phases_of(cfg))]  # fmt: skip


def kinds_of(cfg: DictConfig) -> dict[str, str]:
    """The kind of each phase, of PHASES."""
    stages = {stage.name: LATER if stage.starts_from else FIRST for stage in chain(cfg)}
    return {**stages, **{kind: kind for kind in PHASES if kind not in (FIRST, LATER)}}


@lru_cache(maxsize=256)  # seconds each; a launch repeats the queries of memory=auto and of the advice
def _need(content: str, precision: str, phase: str) -> Need:
    (peak,) = predict(OmegaConf.create(content), precision, (phase,))
    return Need(peak)


def advice(cfg: DictConfig, budget: int, current: list[Need]) -> list[Advice]:
    """The savers that make every phase fit into the budget.

    Args:
        cfg: The config of the run.
        budget: The limit, in bytes.
        current: The needs of all phases of the config.

    Returns:
        Each single saver that suffices. If none does, one entry with savers combined until they fit; if even all of them
        do not, that entry has fits=False.
    """
    over = [need.peak.phase for need in sorted(current, key=lambda need: -need.total) if need.total > budget]
    single, kinds = [], kinds_of(cfg)
    for changed, override, phases, cost in _variants(cfg, _blocks(current)):
        if not {kinds[phase] for phase in over} <= set(phases):
            continue  # it does not affect a phase that exceeds the budget
        override, total = _fitted(cfg, changed, override, over, current, budget)
        if total <= budget:
            single.append(Advice(override, total, True, cost))
    return single or _combined(cfg, budget, over, current)


def _combined(cfg: DictConfig, budget: int, over: list[str], current: list[Need]) -> list[Advice]:
    """As few savers as make all phases fit, the cheapest first; all of them if not even these are enough."""
    steps = list(_cumulated(cfg, over, _blocks(current)))
    last = len(steps) - 1
    # further savers never need more, so that bisection finds the first that suffice for the largest phase
    first = bisect_left(range(last), True, key=lambda i: needs(steps[i][0], (over[0],))[0].total <= budget)
    for changed, overrides, costs in steps[first:]:
        overrides, total = _fitted(cfg, changed, overrides, over, current, budget)
        if total <= budget or changed is steps[last][0]:
            return [Advice(overrides, total, total <= budget, costs)]
    return []


def _fitted(
    cfg: DictConfig, changed: DictConfig, override: str, over: list[str], current: list[Need], budget: int
) -> tuple[str, int]:
    """Plan a config with savers. One that swaps all blocks swaps as few as fit: each costs a copy per pass.

    Their number is estimated from the blocks' bytes, two of which are on the device, and checked by a plan. What that plan
    exceeds the budget by is added to the estimate.

    Args:
        cfg: The config of the run.
        changed: That with the savers.
        override: Their overrides.
        over: The phases that exceed the budget, the largest first.
        current: The needs of all phases of the config.
        budget: The limit, in bytes.

    Returns:
        The overrides, and the largest need with them, in bytes.
    """
    swapped, own = changed.memory.swap, cfg.memory.swap
    if swapped == own:
        return override, _largest(changed, over, current, budget)
    without = _swapping(changed, own)
    blocks, excess = needs(without, (over[0],))[0].peak.blocks, _largest(without, over, current, budget) - budget
    fewer = own
    while True:
        fewer = next((n for n in range(fewer + 1, swapped) if _saved(blocks, n) - _saved(blocks, own) >= excess), swapped)
        total = _largest(_swapping(changed, fewer), over, current, budget)
        if total <= budget or fewer == swapped:
            return override.replace(f"memory.swap={swapped}", f"memory.swap={fewer}"), total
        excess += total - budget


def _swapping(cfg: DictConfig, blocks: int) -> DictConfig:
    return OmegaConf.merge(cfg, {"memory": {"swap": blocks}})


def _saved(blocks: tuple[int, ...], swapped: int) -> int:
    """Bytes that swapping the last blocks saves, of which two are on the device."""
    sizes = sorted(blocks[len(blocks) - swapped :])
    return sum(sizes[:-2])


def _blocks(current: list[Need]) -> int:
    """Number of the backbone's blocks that can be swapped."""
    return max((len(need.peak.blocks) for need in current), default=0)


def _cumulated(cfg: DictConfig, over: list[str], blocks: int = 0) -> Iterator[tuple[DictConfig, str, str]]:
    """Configs with the first saver, the first two, and so on; their overrides and costs."""
    overrides: list[str] = []
    costs: list[str] = []
    kinds = {kinds_of(cfg)[phase] for phase in over}
    for settings, phases, cost in SAVERS:
        step = applied(cfg, settings, blocks)
        if step is not None and kinds & set(phases):
            cfg = step[0]
            overrides.append(step[1])
            costs.append(cost)
            yield cfg, " ".join(overrides), "; ".join(costs)


def _largest(cfg: DictConfig, over: list[str], current: list[Need], budget: int) -> int:
    """The largest need; phases that fitted before are checked only once the others fit."""
    total = 0
    for phase in (*over, *(need.peak.phase for need in current if need.peak.phase not in over)):
        total = max(total, needs(cfg, (phase,))[0].total)
        if total > budget:
            break
    return total


def _variants(cfg: DictConfig, blocks: int) -> Iterator[tuple[DictConfig, str, tuple[str, ...], str]]:
    for settings, phases, cost in SAVERS:
        changed = applied(cfg, settings, blocks)
        if changed is not None:
            yield *changed, phases, cost
