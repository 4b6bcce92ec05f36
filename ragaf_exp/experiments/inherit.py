"""Copies stage 1 from another run."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.config.stages import FIRST, LAST
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.safe_files import is_regular, read_bounded
from ragaf_exp.experiments.transfer import source_file
from ragaf_exp.runs.checkpoints import load_newest, save
from ragaf_exp.runs.folder import RunFolder


def inherit(cfg: DictConfig, folder: RunFolder) -> None:
    """Copy stage 1 and the tokenizer of the run in init=, so that this run does not depend on it.

    Raises UserError if init is missing, or that run lacks a checkpoint or its tokenizer.
    """
    if FIRST.name in cfg.stage.run or load_newest(folder.checkpoints, FIRST.name, parts=()) is not None:
        return
    if cfg.init is None:
        raise UserError(f"stage={LAST.name}: give init=<run folder> with the stage 1 to start from, or use stage=both")
    if source_file(cfg.init) is not None:
        raise UserError(f"init={cfg.init}: a file of weights starts stage 1; use stage=both, or give a run folder")
    other, _ = RunFolder.read(cfg.init, finished=False)
    checkpoint = load_newest(other.checkpoints, FIRST.name)
    if checkpoint is None:
        raise UserError(f"init={cfg.init}: holds no intact checkpoint of stage 1; train it with stage={FIRST.name}")
    if not is_regular(other.tokenizer):
        raise UserError(f"{other.tokenizer}: missing; restore it, or train that run again")
    write_bytes(folder.tokenizer, read_bounded(other.tokenizer))
    save(folder.checkpoints, checkpoint, keep=1)
