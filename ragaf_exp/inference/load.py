"""Stages that are trained: taken over from another run, read from checkpoints, put together to sample."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import is_folder, is_regular
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.models.loading.sources import load_own, share_identical_weights
from ragaf_exp.models.model import Model
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import NETWORKS, check_followed
from ragaf_exp.training import precision_choice


def make_pipeline(cfg: DictConfig, parts: Parts, coarse: Model | None, refine: Model | None, compute: Compute) -> Pipeline:
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
        raise UserError(
            f"{folder.checkpoints / stage}: does not fit this config's model; was config.yaml changed?"
        ) from error
    if not all(value.isfinite().all() for value in found.ema.values() if value.is_floating_point()):
        raise UserError(f"{folder.checkpoints / stage}: its weights are NaN or infinite; train this stage again")
    return model.requires_grad_(False).eval()


def load_run(folder: RunFolder, cfg: DictConfig) -> tuple[Parts, Pipeline]:
    """A finished run's parts and its sampling pipeline."""
    check_followed(folder, cfg, NETWORKS)
    compute = precision_choice.for_sampling(folder, cfg.memory.device, cfg.memory.precision)
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
            if (coarse := models[COARSE]) is not None:
                share_identical_weights(coarse, model)
            models[stage] = model.to(compute.device)
    return parts, make_pipeline(cfg, parts, models[COARSE], models[REFINE], compute)
