"""Builds the trainer of a stage from config, for runs, memory planning and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ragaf_exp.assembly.model import init_from_start, make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import PLAIN
from ragaf_exp.config.stages import chain, plain_schema, stage_of
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
        validate: Called with (stage, EMA model, earlier models, objective, compute, step); returns metrics to log.
        on_log: Called with (stage, step, metrics).
        initialise: Called with (stage, new model, state of the stage it starts from or None), before the model is trained.
        settle: Selects device and precision from (model, objective, schedule, run folder); None for `compute`.
    """

    cfg: DictConfig
    parts: Parts
    compute: Compute
    cached: CacheUse = CacheUse()
    validate: Callable[[str, nn.Module, Mapping[str, Model], Objective, Compute, int], dict[str, float]] = lambda *_: {}
    on_log: Callable[[str, int, dict[str, float]], None] = lambda *_: None
    initialise: Callable[[str, Model, Mapping[str, Tensor] | None], None] = lambda *_: None
    settle: Callable[[Model, Objective, StageSchedule, RunFolder], Compute] | None = None
    settings: dict = field(init=False)  # config groups as their dataclasses

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", settings_of(self.cfg) | {"task": self.parts.task})

    def trainer(self, stage: str, earlier: Mapping[str, Model], folder: RunFolder) -> Trainer:
        """Build the trainer of a stage.

        Args:
            stage: Name of the stage.
            earlier: The trained models of the stages before it, by name.
            folder: The run folder.

        Returns:
            The trainer.
        """
        s, spec, parts = self.settings, stage_of(self.cfg, stage), self.parts
        model = make_model(parts, stage)
        self._merge(model, stage)
        start = earlier[spec.starts_from] if spec.starts_from else None
        if start is not None:
            copy_tuned_weights(start, model)
            model = init_from_start(model, start.state_dict(), s["memory"])
        self.initialise(stage, model, None if start is None else start.state_dict())
        set_trainable(model, start is not None, s["memory"])
        sampled = start if spec.takes_start else None
        idle = [other for other in earlier.values() if other is not sampled]
        objective = Objective(parts.diffusion, s["loss"], sampled, spec.settings["coarse_steps"], parts.task, parts.codec)
        objective = objective.to(self.compute.device)
        schedule = plan(self.cfg, stage, self.parts)
        compute = self.settle(model, objective, schedule, folder) if self.settle else self.compute
        networks = Networks(model, objective, parts.codec, self._idle(model, idle))
        settings = Settings(s["stage"], s["optim"], s["task"], s["memory"], self.cfg.seed)
        hooks = Hooks(lambda ema, step: self.validate(stage, ema, earlier, objective, compute, step), self.on_log)
        return Trainer(schedule, networks, folder, compute, settings, hooks)

    def _merge(self, model: Model, stage: str) -> None:
        """Merge memory.merge into the weights that the first stage starts from; later stages take them over."""
        memory = self.settings["memory"]
        if not memory.merge:
            return
        first = chain(self.cfg)[0].name
        if first not in self.cfg.stage.run:
            raise UserError(f"memory.merge={memory.merge}: is merged before stage {first}, which this run does not "
                            f"train; add {first} to stage.run")  # fmt: skip
        if stage == first:
            merge_lora(model.backbone, memory.merge, memory.merge_scale)

    def _idle(self, model: Model, earlier: Sequence[Model]) -> list[nn.Module]:
        """Networks that no training step runs: those of earlier stages, and encoders whose outputs are cached."""
        edits = self.parts.task.has_source and model.backbone.reads_source
        encodes = self.parts.task.uses_codec or model.hint.uses_codec or edits
        codec = self.parts.codec if self.cached.latents and not encodes else None
        text = model.text if self.cached.texts else None
        return [network for network in (*earlier, codec, text) if network is not None]


def settings_of(cfg: DictConfig) -> dict:
    """The config groups that have a dataclass, as objects by group."""
    return {key: OmegaConf.to_object(OmegaConf.merge(plain_schema(key, cfg[key]), cfg[key])) for key in PLAIN}


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
    spec, steps = stage_of(cfg, stage), steps_of(cfg, stage)
    settings, last = spec.settings, max(1, round(parts.diffusion.timesteps * spec.strength))
    regions = (spec.recolour, steps - settings["steps"], settings["region_batch"], settings["region_lr"])
    return StageSchedule(stage, steps, settings["lr"], last, *regions, scale=spec.scale)


def steps_of(cfg: DictConfig, stage: str) -> int:
    """Number of optimizer steps of a stage, including those of the region path alone."""
    return cfg.stage[stage].steps + region_steps_of(cfg, stage)


def region_steps_of(cfg: DictConfig, stage: str) -> int:
    """Number of those that train the region path alone; none where no loss trains it."""
    return stage_of(cfg, stage).region_steps if train_regions(cfg.loss) else 0
