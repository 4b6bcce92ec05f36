"""Stages that are trained: taken over from another run, read from checkpoints, put together to sample."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.assemble import Parts, assemble, make_model
from ragaf_exp.config.followed import NETWORKS, check_followed
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.errors import UserError
from ragaf_exp.files import write_bytes
from ragaf_exp.generate import Pipeline
from ragaf_exp.models.model import Model
from ragaf_exp.models.sources import hold_once, load_own
from ragaf_exp.runfolder import RunFolder
from ragaf_exp.safe_files import is_folder, is_regular, read_bounded
from ragaf_exp.training import timed
from ragaf_exp.training.checkpoint import load_newest, save
from ragaf_exp.training.precision import Compute


def inherit(cfg: DictConfig, folder: RunFolder) -> None:
    """Copy stage 1 and the tokenizer of the run that init= names, so that this run stands on its own."""
    if COARSE in cfg.stage.run or load_newest(folder.checkpoints, COARSE, parts=()) is not None:
        return
    if cfg.init is None:
        raise UserError("stage=refine: give init=<run folder> whose stage 1 to start from, or take stage=both")
    other, _ = RunFolder.read(cfg.init, finished=False)
    found = load_newest(other.checkpoints, COARSE)
    if found is None:
        raise UserError(f"init={cfg.init}: holds no whole checkpoint of stage 1; train it with stage=coarse")
    if not is_regular(other.tokenizer):
        raise UserError(f"{other.tokenizer}: missing; restore it, or train that run again")
    write_bytes(folder.tokenizer, read_bounded(other.tokenizer))
    save(folder.checkpoints, found, keep=1)


def make_pipeline(
    cfg: DictConfig, parts: Parts, coarse: Model | None, refine: Model | None, compute: Compute
) -> Pipeline:
    strength, scale = cfg.stage.refine.strength, cfg.stage.coarse.scale
    return Pipeline(coarse, refine, parts.codec, parts.sampler, compute, strength, cfg.seed, parts.chunks, scale)


def load_stage(model: Model, folder: RunFolder, stage: str) -> Model:
    """The EMA weights of a stage's newest whole checkpoint, in a model that is no longer trained."""
    found = load_newest(folder.checkpoints, stage, parts=("ema",))
    if found is None:
        raise UserError(f"{folder.checkpoints / stage}: no whole checkpoint; train this stage again")
    try:
        load_own(model, found.ema, found.sources)
    except RuntimeError as error:
        raise UserError(f"{folder.checkpoints / stage}: does not fit this config's model; was config.yaml changed?") \
            from error
    if not all(value.isfinite().all() for value in found.ema.values() if value.is_floating_point()):
        raise UserError(f"{folder.checkpoints / stage}: its weights are NaN or infinite; train this stage again")
    return model.requires_grad_(False).eval()


def load_run(folder: RunFolder, cfg: DictConfig) -> tuple[Parts, Pipeline]:
    """A finished run's parts and its sampling pipeline."""
    check_followed(folder, cfg, NETWORKS)
    compute = timed.for_sampling(folder, cfg.memory.device, cfg.memory.precision)
    if not is_regular(folder.tokenizer):
        raise UserError(f"{folder.tokenizer}: missing; restore it or train again")
    parts = assemble(cfg, folder)
    parts.codec.to(compute.device)
    models: dict[str, Model | None] = {COARSE: None, REFINE: None}
    if not any((folder.checkpoints / stage).exists() for stage in models):
        raise UserError(f"{folder.checkpoints}: no checkpoint of any stage; run its training command again")
    for stage in models:
        if is_folder(folder.checkpoints / stage):
            model = load_stage(make_model(parts, stage), folder, stage)
            if models[COARSE] is not None:
                hold_once(models[COARSE], model)
            models[stage] = model.to(compute.device)
    return parts, make_pipeline(cfg, parts, models[COARSE], models[REFINE], compute)
