"""Builds the trainer of a stage from config: what the runner, the planner and the benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.assembly.model import init_refine_from_coarse, make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import COARSE, PLAIN, REFINE
from ragaf_exp.models.loading.tuning import copy_tuned_weights, set_trainable
from ragaf_exp.models.model import Model
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.encoder_cache.features import CacheUse
from ragaf_exp.training.losses.region_targets import train_regions
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.schedule import StageSchedule
from ragaf_exp.training.trainer import Hooks, Networks, Settings, Trainer


@dataclass(frozen=True)
class TrainerSetup:
    """What the trainers of a run's stages have in common.

    cached: which encoders' outputs are read from the encoder cache, so that no training step runs these encoders.
    validate: called with (stage, EMA model, stage 1's model, objective, compute, step); returns metrics to log.
    settle: chooses the device and precision of a stage from (model, objective, schedule, run folder); else `compute`.
    """

    cfg: DictConfig
    parts: Parts
    compute: Compute
    cached: CacheUse = CacheUse()
    validate: Callable[[str, nn.Module, Model | None, Objective, Compute, int], dict[str, float]] = lambda *_: {}
    on_log: Callable[[str, int, dict[str, float]], None] = lambda *_: None
    settle: Callable[[Model, Objective, StageSchedule, RunFolder], Compute] | None = None
    settings: dict = field(init=False)  # config groups as their dataclasses

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", settings_of(self.cfg) | {"task": self.parts.task})

    def trainer(self, stage: str, coarse: Model | None, folder: RunFolder) -> Trainer:
        """The trainer of a stage; coarse: stage 1's trained model, from which stage 2 starts."""
        s, refine = self.settings, self.cfg.stage.refine
        model = make_model(self.parts, stage)
        if stage == REFINE:
            assert coarse is not None, "stage 2 starts from stage 1"
            copy_tuned_weights(coarse, model)
            model = init_refine_from_coarse(model, coarse.state_dict(), s["memory"])
        set_trainable(model, stage, s["memory"])
        stage1 = coarse if stage == REFINE and refine.coarse_input else None
        parts = self.parts
        objective = Objective(parts.diffusion, s["loss"], stage1, refine.coarse_steps, parts.task, parts.codec)
        objective = objective.to(self.compute.device)
        schedule = plan(self.cfg, stage, self.parts)
        compute = self.settle(model, objective, schedule, folder) if self.settle else self.compute
        networks = Networks(model, objective, self.parts.codec, self._idle(model, None if stage1 else coarse))
        settings = Settings(s["stage"], s["optim"], s["task"], s["memory"], self.cfg.seed)
        hooks = Hooks(lambda ema, step: self.validate(stage, ema, coarse, objective, compute, step), self.on_log)
        return Trainer(schedule, networks, folder, compute, settings, hooks)

    def _idle(self, model: Model, coarse: Model | None) -> list[nn.Module]:
        """Networks that no training step runs: stage 1's in stage 2, and encoders whose outputs are cached."""
        codec = self.parts.codec if self.cached.latents and not self.parts.task.uses_codec else None
        text = model.text if self.cached.texts else None
        return [network for network in (coarse, codec, text) if network is not None]


def settings_of(cfg: DictConfig) -> dict:
    """The config groups that have a dataclass of their own, as objects by group."""
    return {key: OmegaConf.to_object(OmegaConf.merge(schema, cfg[key])) for key, schema in PLAIN.items()}


def plan(cfg: DictConfig, stage: str, parts: Parts) -> StageSchedule:
    """Steps and rates of a stage. Stage 2 is trained on the timesteps that sampling with its strength visits."""
    if stage == COARSE:
        pace = cfg.stage.coarse
        return StageSchedule(stage, pace.steps, pace.lr, parts.diffusion.timesteps, scale=pace.scale)
    pace = cfg.stage.refine
    last = max(1, round(parts.diffusion.timesteps * pace.strength))
    steps = steps_of(cfg, stage)
    return StageSchedule(stage, steps, pace.lr, last, pace.recolour, steps - pace.steps, pace.region_batch, pace.region_lr)


def steps_of(cfg: DictConfig, stage: str) -> int:
    """Steps of a stage, with those of the region path alone."""
    if stage == COARSE:
        return cfg.stage.coarse.steps
    region_steps = cfg.stage.refine.region_steps if train_regions(cfg.loss) else 0  # they have no other loss
    return region_steps + cfg.stage.refine.steps
