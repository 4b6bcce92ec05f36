"""What a finished run has lost since: its training command makes it again, as the messages about it say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.files import is_damaged
from ragaf_exp.runs import checkpoints
from ragaf_exp.training.losses.region_targets import train_regions

if TYPE_CHECKING:
    from ragaf_exp.runs.folder import RunFolder


def lacks(cfg: DictConfig, folder: RunFolder) -> str:
    """What is missing or damaged of a finished run, "" where it is whole. A tokenizer that is empty is removed."""
    if not folder.tokenizer.exists() or not folder.tokenizer.stat().st_size:
        folder.tokenizer.unlink(missing_ok=True)
        return f"{folder.tokenizer.name} is missing or empty"
    for stage in (COARSE, REFINE) if REFINE in cfg.stage.run else (COARSE,):
        newest = checkpoints.newest_whole(folder.checkpoints, stage)
        if newest is None or (stage in cfg.stage.run and int(newest.name) != steps_of(cfg, stage)):
            return f"the last checkpoint of stage {stage} is missing or damaged"
    return f"{folder.metrics.name} is missing or damaged" if is_damaged(folder.metrics) else ""


def steps_of(cfg: DictConfig, stage: str) -> int:
    """Steps of a stage, with those of the region path alone."""
    if stage == COARSE:
        return cfg.stage.coarse.steps
    region_steps = cfg.stage.refine.region_steps if train_regions(cfg.loss) else 0  # they have no other loss
    return region_steps + cfg.stage.refine.steps
