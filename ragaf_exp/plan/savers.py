"""The settings that save memory, in the order of their cost, and configs with them."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.plan.dry_run import REGIONS
from ragaf_exp.plan.predict import SAMPLING, VALIDATION, micro_batch
from ragaf_exp.plan.unloaded import step_items

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
    ({"memory.swap": "blocks"}, PHASES, "copies of frozen blocks to the device for their turn, forward and backward"),
    ({"eval.batch": "half"}, (VALIDATION, SAMPLING), "smaller kernels while sampling"),
    ({"memory.tune": "frozen"}, PHASES, "none in speed, but fewer weights are trained"),
]


def precision_of(cfg: DictConfig) -> str:
    """The number format on a CUDA device; auto is bf16 there."""
    return "bf16" if cfg.memory.precision == "auto" else cfg.memory.precision


def applied(cfg: DictConfig, settings: dict[str, Any], blocks: int = 0) -> tuple[DictConfig, str] | None:
    """Apply a saver.

    Args:
        cfg: The config of a run.
        settings: Its settings, of SAVERS.
        blocks: Number of the backbone's blocks that can be swapped.

    Returns:
        The changed config and its overrides; None if they are already set or cannot apply.
    """
    changed, overrides = OmegaConf.create(OmegaConf.to_container(cfg)), []
    for key, value in settings.items():
        value, now = _scaled(cfg, key, value, blocks), OmegaConf.select(cfg, key)
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


def _scaled(cfg: DictConfig, key: str, value: Any, blocks: int) -> Any:
    if value == "twice":
        more = 2 * cfg.stage.accumulate
        return more if micro_batch(cfg) > 1 and step_items(cfg) % more == 0 else None
    if value == "checkpointed":
        return True if cfg.memory.checkpointing and not cfg.memory.compile else None
    if value == "blocks":
        return max(blocks, cfg.memory.swap) if blocks and cfg.memory.checkpointing and not cfg.memory.compile else None
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
