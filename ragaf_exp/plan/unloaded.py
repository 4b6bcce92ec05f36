"""Networks that are built without their files, and the number of items of a step, which depends on the networks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.build import locate
from ragaf_exp.config.stages import chain
from ragaf_exp.data.buckets import items_of
from ragaf_exp.plan.dry_run import DryRun
from ragaf_exp.plan.dummies import planned_size
from ragaf_exp.plan.fake_cuda import FakeCudaCompute, meta_device


def unloaded(cfg: DictConfig) -> DictConfig:
    """Copy a config. In the copy, networks whose folders are not on this machine are built from the config alone."""
    other = OmegaConf.create(OmegaConf.to_container(cfg))
    for group in ("backbone", "codec", "text", "hint"):
        part = other[group]
        if "weights" in part:
            part.weights, part.source = "none", part.source if _is_local(part.get("source", "")) else ""
    if "source" in other.diffusion and not _is_local(other.diffusion.source):
        other.diffusion = {"_target_": "ragaf_exp.diffusion.process.Diffusion"}
    other.sampler.scheduler = locate(other.diffusion._target_, "diffusion").schedulers[0]
    return other


def step_items(cfg: DictConfig) -> int:
    """Items in a step on images of the planned size, over all micro-batches: stage.batch, or as stage.tokens allows.

    Raises:
        UserError: One image has more tokens than stage.tokens.
    """
    return _items_within(OmegaConf.to_yaml(cfg)) if cfg.stage.tokens else cfg.stage.batch


@lru_cache(maxsize=64)  # seconds each for a large transformer
def _items_within(content: str) -> int:
    cfg = unloaded(OmegaConf.create(content))
    with meta_device():
        model = make_model(DryRun(cfg, FakeCudaCompute("no")).parts, chain(cfg)[0].name)
        return items_of(cfg.stage.tokens, planned_size(cfg, model), model.token_side)


def _is_local(source: str) -> bool:
    return source != "" and Path(source).expanduser().is_dir()
