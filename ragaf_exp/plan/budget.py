"""From a predicted peak of tensors to what a CUDA device must have, and the savers that would make a plan fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.plan.dry_run import REGIONS
from ragaf_exp.plan.predict import PHASES, SAMPLING, VALIDATION, Peak, micro_batch, phases_of, predict

GIB = 2**30
SEGMENT = 2 * 2**20  # CUDA's allocator asks the device for multiples of it
CONTEXT = 0.45  # GiB: CUDA's context and the libraries' kernels, which no allocator counts; an assumption
KERNELS = 0.25  # GiB: workspaces of cuDNN and cuBLAS; an assumption
FRAGMENTS = 0.05  # of activations and workspace: holes between blocks; an assumption
CHANGING = ("activations", "workspace", "batch")

TRAINING = (COARSE, REFINE, REGIONS)
HELD = (*TRAINING, VALIDATION)  # while an optimizer and an average are there

# (keys and values, phases that they change, what they cost), the cheapest in speed first. Costs are not measured here
SAVERS: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"memory.precision": "bf16"}, PHASES, "none on devices with bf16: it is faster"),
    ({"stage.accumulate": "twice"}, TRAINING, "none but smaller kernels: the same batch in twice as many pieces"),
    ({"memory.offload": True}, (REFINE, REGIONS), "validation waits for weights to be moved"),
    ({"memory.features": "frozen", "memory.offload": True}, TRAINING, "a pass over the data before training"),
    ({"memory.optimizer": "adamw8bit"}, HELD, "a few per cent of a step"),
    ({"memory.ema": "cpu"}, HELD, "a copy of the trained weights to main memory per step"),
    ({"memory.step_in_backward": True, "optim.clip": 0.0}, TRAINING, "none in speed, but no clipping of gradients"),
    ({"memory.checkpointing": True}, TRAINING, "about a third more time per step"),
    ({"eval.batch": "half"}, (VALIDATION, SAMPLING), "smaller kernels while sampling"),
    ({"memory.tune": "frozen"}, PHASES, "none in speed, but it trains less"),
]


@dataclass(frozen=True)
class Need:
    """What one phase asks of a device, in bytes."""

    peak: Peak

    @property
    def margin(self) -> int:
        """Rounding to segments, holes, workspaces of kernels, CUDA's context."""
        changing = sum(self.peak.parts.get(kind, 0) for kind in CHANGING)
        held = self.peak.bytes + FRAGMENTS * changing + KERNELS * GIB
        return math.ceil(held / SEGMENT) * SEGMENT + int(CONTEXT * GIB) - self.peak.bytes

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
    """Overrides, the largest need of any phase with them in bytes, and what they cost."""

    override: str
    total: int
    fits: bool
    cost: str


def precision_of(cfg: DictConfig) -> str:
    """The number format on a CUDA device; auto is bf16 there."""
    return "bf16" if cfg.memory.precision == "auto" else cfg.memory.precision


def needs(cfg: DictConfig, phases: tuple[str, ...] | None = None) -> list[Need]:
    """What every phase that the config runs (or those named) asks of a CUDA device."""
    content = OmegaConf.to_yaml(cfg)
    return [_need(content, precision_of(cfg), phase) for phase in sorted(phases or phases_of(cfg), key=PHASES.index)]


@lru_cache(maxsize=256)  # seconds each, and a launch asks for what memory=auto and the advice have asked for
def _need(content: str, precision: str, phase: str) -> Need:
    (peak,) = predict(OmegaConf.create(content), precision, (phase,))
    return Need(peak)


def advice(cfg: DictConfig, budget: int, found: list[Need]) -> list[Advice]:
    """What makes every phase fit into `budget` bytes: single savers; where none does, savers together.

    found: the needs of all phases of the config. Where all savers together don't do either, they are the only answer,
    with what is still needed.
    """
    over = [need.peak.phase for need in sorted(found, key=lambda need: -need.total) if need.total > budget]
    alone = []
    for changed, override, phases, cost in _variants(cfg):
        if not set(over) <= set(phases):
            continue  # it leaves a phase as it is that does not fit
        total = _largest(changed, over, found, budget)
        if total <= budget:
            alone.append(Advice(override, total, True, cost))
    return alone or _together(cfg, budget, over, found)


def _together(cfg: DictConfig, budget: int, over: list[str], found: list[Need]) -> list[Advice]:
    """Savers one on top of another, the cheapest first, until all phases fit."""
    changed, said, costs, total = cfg, [], [], 0
    for settings, phases, cost in SAVERS:
        step = _with(changed, settings)
        if step is None or not set(over) & set(phases):
            continue
        changed = step[0]
        said.append(step[1])
        costs.append(cost)
        total = _largest(changed, over, found, budget)
        if total <= budget:
            return [Advice(" ".join(said), total, True, "; ".join(costs))]
    return [Advice(" ".join(said), total, False, "; ".join(costs))] if said else []


def _largest(cfg: DictConfig, over: list[str], found: list[Need], budget: int) -> int:
    """The largest need; phases that fitted before are looked at once the others fit."""
    total = 0
    for phase in (*over, *(need.peak.phase for need in found if need.peak.phase not in over)):
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
    """The config with a saver, and the overrides that say it; None where it has it or can't have it."""
    changed, said = OmegaConf.create(OmegaConf.to_container(cfg)), []
    for key, value in settings.items():
        value, now = _scaled(cfg, key, value), OmegaConf.select(cfg, key)
        if value is None:
            return None
        if value != now:
            OmegaConf.update(changed, key, value)
            said.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    one = cfg.stage.accumulate == 1 and cfg.memory.precision != "fp16"
    if not said or ("memory.step_in_backward" in settings and not one):
        return None
    if "stage.accumulate" in settings and cfg.memory.step_in_backward:
        return None
    return changed, " ".join(said)


def _scaled(cfg: DictConfig, key: str, value: Any) -> Any:
    if value == "twice":
        more = 2 * cfg.stage.accumulate
        return more if micro_batch(cfg) > 1 and cfg.stage.batch % more == 0 else None
    if value == "half":
        return cfg.eval.batch // 2 or None
    if key == "memory.features":  # of encoders that are not trained
        texts = cfg.text.get("train") is False
        return ("all" if texts else "latents") if "weights" in cfg.codec and cfg.cache.enabled else None
    if key == "memory.precision":
        return value if precision_of(cfg) == "no" else None
    return value
