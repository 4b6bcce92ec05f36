"""Checks whether a finished run has lost files, which its training command then restores."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.config.stages import chain
from ragaf_exp.core.files import is_damaged
from ragaf_exp.runs import checkpoints
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.setup import steps_of


def lacks(cfg: DictConfig, folder: RunFolder) -> str:
    """Describe the first missing or damaged file of a finished run, "" if it is intact. Removes an empty tokenizer."""
    if not folder.tokenizer.exists() or not folder.tokenizer.stat().st_size:
        folder.tokenizer.unlink(missing_ok=True)
        return f"{folder.tokenizer.name} is missing or empty"
    for stage in chain(cfg):
        newest = checkpoints.newest_whole(folder.checkpoints, stage.name)
        if newest is None or (stage.name in cfg.stage.run and int(newest.name) != steps_of(cfg, stage.name)):
            return f"the last checkpoint of stage {stage.name} is missing or damaged"
    return f"{folder.metrics.name} is missing or damaged" if is_damaged(folder.metrics) else ""
