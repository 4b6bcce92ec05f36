"""Warnings, one line each before the first step, about settings that are allowed but can hardly train a useful model."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.config.stages import trained

DROPOUT = "_dropout"  # how the settings of a task end that say how often a condition is dropped


def doubts(cfg: DictConfig) -> list[str]:
    """List the doubtful combinations of settings in a checked config, each as one line with the remedy."""
    return [*_losses(cfg), *_pace(cfg), *_conditions(cfg), *_network(cfg)]


def _losses(cfg: DictConfig) -> list[str]:
    if cfg.loss.diffusion > 0:
        return []
    return ["loss.diffusion=0: no loss trains the denoiser, and samples stay noise; set loss.diffusion=1"]


def _pace(cfg: DictConfig) -> list[str]:
    """Per stage: a warm-up as long as the stage, or a weight decay that outweighs the gradient."""
    lines = []
    for stage in trained(cfg):
        key, steps, rate = f"stage.{stage.name}", stage.settings["steps"] + stage.region_steps, stage.settings["lr"]
        if cfg.optim.warmup >= steps > 1:
            lines.append(f"optim.warmup={cfg.optim.warmup}: stage {stage.name} has {steps} steps and never reaches "
                         f"its learning rate; set optim.warmup={steps // 10}")  # fmt: skip
        if rate * cfg.optim.weight_decay > 0.1:
            lines.append(f"optim.weight_decay={cfg.optim.weight_decay:g}: with {key}.lr={rate:g}, weights shrink by "
                         f"{rate * cfg.optim.weight_decay:.0%} per step; set optim.weight_decay=0.0001")  # fmt: skip
    return lines


def _conditions(cfg: DictConfig) -> list[str]:
    """A condition that training always drops, although sampling uses it."""
    shares = {str(key).removesuffix(DROPOUT): share for key, share in cfg.task.items() if str(key).endswith(DROPOUT)}
    return [f"task.{name}_dropout={share:g}: training never shows a {name}, and samples cannot follow it; "
            f"set task.{name}_dropout=0.1" for name, share in shares.items() if share == 1]  # fmt: skip


def _network(cfg: DictConfig) -> list[str]:
    """A pixel codec without the layer that works at full resolution."""
    patch = cfg.codec.get("patch", 1)
    if cfg.backbone.get("head_width") != 0 or patch == 1:
        return []
    return [f"backbone.head_width=0: nothing is drawn finer than patches of {patch} pixels, whose seams stay "
            "visible; set backbone.head_width=16"]  # fmt: skip
