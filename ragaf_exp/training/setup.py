"""Builds the trainer of a stage from config, for runs, memory planning and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ragaf_exp.assembly.model import init_refine_from_coarse, make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import PLAIN
from ragaf_exp.config.stages import FIRST, STAGES
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.loading.merging import merge_lora
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
    """Builds the trainers of all stages of a run.

    Args:
        cfg: Config of the run.
        parts: Its components.
        compute: Device and precision.
        cached: The encoders whose outputs are read from the encoder cache, so that training steps do not run them.
        validate: Called with (stage, EMA model, stage 1's model, objective, compute, step); returns metrics to log.
        on_log: Called with (stage, step, metrics).
        initialise: Called with (stage, new model, state of stage 1 or None), before the model is trained.
        settle: Selects device and precision from (model, objective, schedule, run folder); None for `compute`.
    """

    cfg: DictConfig
    parts: Parts
    compute: Compute
    cached: CacheUse = CacheUse()
    validate: Callable[[str, nn.Module, Model | None, Objective, Compute, int], dict[str, float]] = lambda *_: {}
    on_log: Callable[[str, int, dict[str, float]], None] = lambda *_: None
    initialise: Callable[[str, Model, Mapping[str, Tensor] | None], None] = lambda *_: None
    settle: Callable[[Model, Objective, StageSchedule, RunFolder], Compute] | None = None
    settings: dict = field(init=False)  # config groups as their dataclasses

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", settings_of(self.cfg) | {"task": self.parts.task})

    def trainer(self, stage: str, coarse: Model | None, folder: RunFolder) -> Trainer:
        """Build the trainer of a stage.

        Args:
            stage: Name of the stage.
            coarse: The trained model of stage 1, required by stage 2.
            folder: The run folder.

        Returns:
            The trainer.
        """
        s, kind = self.settings, STAGES[stage]
        model = make_model(self.parts, stage)
        self._merge(model, stage)
        if kind.starts_from:
            assert coarse is not None, f"{kind.name} starts from {kind.starts_from}"
            copy_tuned_weights(coarse, model)
            model = init_refine_from_coarse(model, coarse.state_dict(), s["memory"])
        self.initialise(stage, model, coarse.state_dict() if kind.starts_from and coarse is not None else None)
        set_trainable(model, stage, s["memory"])
        start, parts = coarse if kind.takes_start(self.cfg) else None, self.parts
        start_steps = kind.setting(self.cfg, "coarse_steps", 1)
        objective = Objective(parts.diffusion, s["loss"], start, start_steps, parts.task, parts.codec)
        objective = objective.to(self.compute.device)
        schedule = plan(self.cfg, stage, self.parts)
        compute = self.settle(model, objective, schedule, folder) if self.settle else self.compute
        idle = self._idle(model, None if start else coarse)
        networks = Networks(model, objective, self.parts.codec, idle)
        settings = Settings(s["stage"], s["optim"], s["task"], s["memory"], self.cfg.seed)
        hooks = Hooks(lambda ema, step: self.validate(stage, ema, coarse, objective, compute, step), self.on_log)
        return Trainer(schedule, networks, folder, compute, settings, hooks)

    def _merge(self, model: Model, stage: str) -> None:
        """Merge memory.merge into the weights that stage 1 starts from; stage 2 takes them over."""
        memory = self.settings["memory"]
        if not memory.merge:
            return
        if FIRST.name not in self.cfg.stage.run:
            raise UserError(f"memory.merge={memory.merge}: is merged before stage {FIRST.name}, which this run does not "
                            "train; set stage=both")  # fmt: skip
        if stage == FIRST.name:
            merge_lora(model.backbone, memory.merge, memory.merge_scale)

    def _idle(self, model: Model, coarse: Model | None) -> list[nn.Module]:
        """Networks that no training step runs: stage 1's in stage 2, and encoders whose outputs are cached."""
        edits = self.parts.task.has_source and model.backbone.reads_source
        encodes = self.parts.task.uses_codec or model.hint.uses_codec or edits
        codec = self.parts.codec if self.cached.latents and not encodes else None
        text = model.text if self.cached.texts else None
        return [network for network in (coarse, codec, text) if network is not None]


def settings_of(cfg: DictConfig) -> dict:
    """The config groups that have a dataclass, as objects by group."""
    return {key: OmegaConf.to_object(OmegaConf.merge(schema, cfg[key])) for key, schema in PLAIN.items()}


def plan(cfg: DictConfig, stage: str, parts: Parts) -> StageSchedule:
    """Read the schedule of a stage from config.

    A stage is trained on the timesteps that sampling with its strength visits.

    Args:
        cfg: Config of the run.
        stage: Name of the stage.
        parts: The components of the run, for the timesteps of the process.

    Returns:
        The schedule.
    """
    kind, stage_cfg, steps = STAGES[stage], cfg.stage[stage], steps_of(cfg, stage)
    last = max(1, round(parts.diffusion.timesteps * kind.setting(cfg, "strength", 1.0)))
    regions = (kind.setting(cfg, "recolour", 0.0), steps - stage_cfg.steps, kind.setting(cfg, "region_batch", 1),
               kind.setting(cfg, "region_lr", 0.0))  # fmt: skip
    return StageSchedule(stage, steps, stage_cfg.lr, last, *regions, scale=kind.scale(cfg))


def steps_of(cfg: DictConfig, stage: str) -> int:
    """Number of optimizer steps of a stage, including those of the region path alone."""
    region_steps = STAGES[stage].setting(cfg, "region_steps", 0)
    return cfg.stage[stage].steps + (region_steps if train_regions(cfg.loss) else 0)  # else they have no loss
