"""Copies the stages that a run starts from, and does not train, from another run."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.safe_files import is_regular, read_bounded
from ragaf_exp.experiments.transfer import source_file
from ragaf_exp.runs.checkpoints import load_newest, save
from ragaf_exp.runs.folder import RunFolder


def inherit(cfg: DictConfig, folder: RunFolder) -> None:
    """Copy earlier stages and the tokenizer of the run in init=, so that this run does not depend on it.

    Raises UserError if init is missing, or that run lacks a checkpoint or its tokenizer.
    """
    earlier = [stage.name for stage in chain(cfg) if stage.name not in cfg.stage.run]
    missing = [stage for stage in earlier if load_newest(folder.checkpoints, stage, parts=()) is None]
    if not missing:
        return
    if cfg.init is None:
        raise UserError(f"stage.run=[{','.join(cfg.stage.run)}]: give init=<run folder> with the stage {missing[0]} to "
                        "start from, or add it to stage.run (stage=both)")  # fmt: skip
    if source_file(cfg.init) is not None:
        raise UserError(f"init={cfg.init}: a file of weights starts stage 1; use stage=both, or give a run folder")
    other, _ = RunFolder.read(cfg.init, finished=False)
    if not is_regular(other.tokenizer):
        raise UserError(f"{other.tokenizer}: missing; restore it, or train that run again")
    for stage in missing:
        checkpoint = load_newest(other.checkpoints, stage)
        if checkpoint is None:
            raise UserError(
                f"init={cfg.init}: holds no intact checkpoint of stage {stage}; train it with stage.run=[{stage}]"
            )
        write_bytes(folder.tokenizer, read_bounded(other.tokenizer))
        save(folder.checkpoints, checkpoint, keep=1)
