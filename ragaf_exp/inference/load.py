"""Loads trained stages from the checkpoints of a run and builds its sampling pipeline."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.safe_files import is_folder, is_regular
from ragaf_exp.inference.pipeline import Pipeline, SampledStage
from ragaf_exp.models.loading.sources import load_own, share_identical_weights
from ragaf_exp.models.model import Model
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import NETWORKS, check_followed
from ragaf_exp.training import precision_choice


def make_pipeline(cfg: DictConfig, parts: Parts, models: Mapping[str, Model], compute: Compute) -> Pipeline:
    """The sampling pipeline of a run.

    Args:
        cfg: The config of the run.
        parts: Its codec, sampler and chunk size.
        models: The models of its stages by name. Without the first ones, sampling starts from noise in a later stage.
        compute: Device and precision.

    Returns:
        The pipeline.
    """
    stages = [SampledStage(stage, models[stage.name]) for stage in chain(cfg) if stage.name in models]
    return Pipeline(stages, parts.codec, parts.sampler, compute, cfg.seed, parts.chunks)


def load_stage(model: Model, folder: RunFolder, stage: str) -> Model:
    """Load the EMA weights of a stage's newest intact checkpoint.

    Args:
        model: The model to load into.
        folder: The run folder.
        stage: Its name.

    Returns:
        The model, frozen and in evaluation mode.

    Raises:
        UserError: If there is no intact checkpoint, it does not fit the model, or its weights are not finite.
    """
    checkpoint = load_newest(folder.checkpoints, stage, parts=("ema",))
    if checkpoint is None:
        raise UserError(f"{folder.checkpoints / stage}: no intact checkpoint; train this stage again")
    try:
        load_own(model, checkpoint.ema, checkpoint.sources)
    except RuntimeError as error:
        raise UserError(
            f"{folder.checkpoints / stage}: does not fit this config's model; was config.yaml changed?"
        ) from error
    if not all(value.isfinite().all() for value in checkpoint.ema.values() if value.is_floating_point()):
        raise UserError(f"{folder.checkpoints / stage}: its weights are NaN or infinite; train this stage again")
    return model.requires_grad_(False).eval()


def load_run(folder: RunFolder, cfg: DictConfig) -> tuple[Parts, Pipeline]:
    """The parts and sampling pipeline of a trained run. Raises UserError if its tokenizer or checkpoints are missing."""
    check_followed(folder, cfg, NETWORKS)
    compute = precision_choice.for_sampling(folder, cfg.memory.device, cfg.memory.precision)
    if not is_regular(folder.tokenizer):
        raise UserError(f"{folder.tokenizer}: missing; restore it or train again")
    parts = assemble(cfg, folder)
    parts.codec.to(compute.device)
    models: dict[str, Model] = {}
    if not any((folder.checkpoints / stage.name).exists() for stage in chain(cfg)):
        raise UserError(f"{folder.checkpoints}: no checkpoint of any stage; run its training command again")
    for stage in chain(cfg):
        if is_folder(folder.checkpoints / stage.name):
            model = load_stage(make_model(parts, stage.name), folder, stage.name)
            if stage.starts_from in models:
                share_identical_weights(models[stage.starts_from], model)
            models[stage.name] = model.to(compute.device)
    return parts, make_pipeline(cfg, parts, models, compute)
