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
from ragaf_exp.plan.dry_run import REGIONS
from ragaf_exp.plan.predict import SAMPLING, VALIDATION, Peak, in_order, micro_batch, phases_of, predict
from ragaf_exp.plan.unloaded import step_items

GIB = 2**30
SEGMENT = 2 * 2**20  # CUDA's allocator requests multiples of it from the device
CONTEXT = 0.45  # GiB: CUDA's context and the libraries' kernels, outside the allocator; an assumption
KERNELS = 0.25  # GiB: workspaces of cuDNN and cuBLAS; an assumption
FRAGMENTS = 0.05  # share of activations and workspace lost to fragmentation; an assumption
CHANGING = ("activations", "workspace", "batch")

FIRST, LATER = "first stage", "later stage"  # kinds of phases; the others are their own kind
TRAINING = (FIRST, LATER, REGIONS)
WITH_OPTIMIZER = (*TRAINING, VALIDATION)  # in which optimizer state and EMA weights exist
PHASES = (*WITH_OPTIMIZER, SAMPLING)

# (settings, kinds of phases that they affect, cost), the smallest loss of speed first; costs are not measured here
SAVERS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"memory.precision": "bf16"}, PHASES, "none on devices with bf16: it is faster"),
    ({"stage.accumulate": "twice"}, TRAINING, "only smaller kernels: the same batch in twice as many micro-batches"),
    ({"memory.offload": True}, (LATER, REGIONS), "validation waits for offloaded weights"),
    ({"memory.features": "frozen", "memory.offload": True}, TRAINING, "a pass over the data before training"),
    ({"memory.base": "nf4"}, PHASES, "quantised frozen weights, restored for each product"),
    ({"memory.optimizer": "adamw8bit"}, WITH_OPTIMIZER, "a few per cent of a step"),
    ({"memory.ema": "cpu"}, WITH_OPTIMIZER, "a copy of the trained weights to main memory per step"),
    ({"memory.step_in_backward": True, "optim.clip": 0.0}, TRAINING, "none in speed, but no gradient clipping"),
    ({"memory.checkpointing": True}, TRAINING, "about a third more time per step"),
    ({"memory.offload_checkpoints": "checkpointed"}, TRAINING, "copies of the blocks' inputs to main memory and back"),
    ({"eval.batch": "half"}, (VALIDATION, SAMPLING), "smaller kernels while sampling"),
    ({"memory.tune": "frozen"}, PHASES, "none in speed, but fewer weights are trained"),
]


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


def precision_of(cfg: DictConfig) -> str:
    """The number format on a CUDA device; auto is bf16 there."""
    return "bf16" if cfg.memory.precision == "auto" else cfg.memory.precision


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
    for changed, override, phases, cost in _variants(cfg):
        if not {kinds[phase] for phase in over} <= set(phases):
            continue  # it does not affect a phase that exceeds the budget
        total = _largest(changed, over, current, budget)
        if total <= budget:
            single.append(Advice(override, total, True, cost))
    return single or _combined(cfg, budget, over, current)


def _combined(cfg: DictConfig, budget: int, over: list[str], current: list[Need]) -> list[Advice]:
    """As few savers as make all phases fit, the cheapest first; all of them if not even these are enough."""
    steps = list(_cumulated(cfg, over))
    last = len(steps) - 1
    # further savers never need more, so that bisection finds the first that suffice for the largest phase
    first = bisect_left(range(last), True, key=lambda i: needs(steps[i][0], (over[0],))[0].total <= budget)
    for changed, overrides, costs in steps[first:]:
        total = _largest(changed, over, current, budget)
        if total <= budget or changed is steps[last][0]:
            return [Advice(overrides, total, total <= budget, costs)]
    return []


def _cumulated(cfg: DictConfig, over: list[str]) -> Iterator[tuple[DictConfig, str, str]]:
    """Configs with the first saver, the first two, and so on; their overrides and costs."""
    overrides: list[str] = []
    costs: list[str] = []
    kinds = {kinds_of(cfg)[phase] for phase in over}
    for settings, phases, cost in SAVERS:
        step = _with(cfg, settings)
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


def _variants(cfg: DictConfig) -> Iterator[tuple[DictConfig, str, tuple[str, ...], str]]:
    for settings, phases, cost in SAVERS:
        changed = _with(cfg, settings)
        if changed is not None:
            yield *changed, phases, cost


def _with(cfg: DictConfig, settings: dict[str, Any]) -> tuple[DictConfig, str] | None:
    """The config with a saver applied, and its overrides; None if it is already set or cannot apply."""
    changed, overrides = OmegaConf.create(OmegaConf.to_container(cfg)), []
    for key, value in settings.items():
        value, now = _scaled(cfg, key, value), OmegaConf.select(cfg, key)
        if value is None:
            return None
        if value != now:
            OmegaConf.update(changed, key, value)
            overrides.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    whole_batch = cfg.stage.accumulate == 1 and cfg.memory.precision != "fp16"
    if not overrides or ("memory.step_in_backward" in settings and not whole_batch):
        return None
    if "stage.accumulate" in settings and cfg.memory.step_in_backward:
        return None
    return changed, " ".join(overrides)


def _scaled(cfg: DictConfig, key: str, value: Any) -> Any:
    if value == "twice":
        more = 2 * cfg.stage.accumulate
        return more if micro_batch(cfg) > 1 and step_items(cfg) % more == 0 else None
    if value == "checkpointed":
        return True if cfg.memory.checkpointing and not cfg.memory.compile else None
    if value == "half":
        return cfg.eval.batch // 2 or None
    if key == "memory.features":  # the outputs of frozen encoders
        frozen_text = cfg.text.get("train") is False
        return ("all" if frozen_text else "latents") if "weights" in cfg.codec and cfg.cache.enabled else None
    if key == "memory.base":
        return value if "every" in cfg.backbone and cfg.memory.tune in ("frozen", "lora") else None
    if key == "memory.precision":
        return value if precision_of(cfg) == "no" else None
    return value
