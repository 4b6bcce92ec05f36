"""Builds the stages of a run from config and trains them in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute, pick_device
from ragaf_exp.config.build import build
from ragaf_exp.config.doubts import doubts
from ragaf_exp.config.stages import chain, trained
from ragaf_exp.core.types import Batch
from ragaf_exp.data.loader import collate
from ragaf_exp.distributed import launch
from ragaf_exp.experiments import shared_stage
from ragaf_exp.experiments.extend import continue_sibling
from ragaf_exp.experiments.inherit import inherit
from ragaf_exp.experiments.transfer import Initialiser
from ragaf_exp.experiments.validation import Validation
from ragaf_exp.inference.load import load_stage
from ragaf_exp.models.loading.tuning import save_lora
from ragaf_exp.models.model import Model
from ragaf_exp.runs import data_record
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.encoder_cache import fill
from ragaf_exp.training.encoder_cache.features import CacheUse
from ragaf_exp.training.loggers import Silent
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.precision_choice import settled
from ragaf_exp.training.precision_trial import Trial
from ragaf_exp.training.schedule import StageSchedule
from ragaf_exp.training.setup import TrainerSetup, region_steps_of, steps_of
from ragaf_exp.training.trainer import Trainer, check_shares

log = logging.getLogger(__name__)


def check_memory(cfg: DictConfig) -> None:
    """Cap the memory of this process. Raises UserError if the predicted peak exceeds the device or memory.budget."""
    if cfg.memory.budget > 0 or pick_device(cfg.memory.device).type == "cuda":
        from ragaf_exp.plan import guard  # imports the planner, which most runs do not need

        guard.check(cfg)
        guard.cap(cfg)


class Training:
    """The training part of a run. stages: the names of the stages that it trains, in order."""

    def __init__(self, cfg: DictConfig, folder: RunFolder):
        self.cfg, self.folder = cfg, folder
        self.stages = [stage.name for stage in trained(cfg)]
        self.compute = Compute(cfg.memory.device, cfg.memory.precision)
        for stage in trained(cfg):  # before the folder is read: the process that writes may discard it at once
            check_shares(stage.name, cfg.stage, region_steps_of(cfg, stage.name), stage.settings["region_batch"])
        for doubt in doubts(cfg) if folder.is_main else ():
            log.warning("%s", doubt)
        with launch.main_process_first():
            continue_sibling(cfg, folder)
            inherit(cfg, folder)
            self.initialise = Initialiser(cfg, folder)
            self.parts = assemble(cfg, folder)
        data_record.check(folder.path, self.parts.source)  # in every process, so that all of them exit if it differs
        self.parts.codec.to(self.compute.device)
        self.train_examples, self.val_examples = self.parts.examples("train"), self.parts.examples("val")
        self.parts.check_splits()
        self._check_later_phases()
        self.logger = build(cfg.logger, "logger") if folder.is_main else Silent()
        self.to_batch: Callable[..., Batch] = collate
        self.setup = self._setup(CacheUse())
        self._record_data(folder)

    @contextmanager
    def started(self) -> Iterator[None]:
        """Fill the encoder cache and open the loggers, which are closed when the block ends."""
        self.logger.open(self.folder.path, OmegaConf.to_container(self.cfg))
        features = fill.prepare(self.cfg, self.parts, self.compute.device, self.folder.mark_progress)
        if features is not None:
            self.to_batch, self.setup = features, self._setup(features.use)
        self.folder.made = []  # from here on, a failed run can be resumed and is kept
        yield
        self.logger.close()
        self._record_data(self.folder)

    def inherited(self) -> dict[str, Model]:
        """The models that another run trained and this one starts from."""
        earlier = [stage.name for stage in chain(self.cfg) if stage.name not in self.stages]
        return {stage: load_stage(make_model(self.parts, stage), self.folder, stage).to(self.compute.device)
                for stage in earlier}  # fmt: skip

    def train(self, stage: str, models: dict[str, Model]) -> Model:
        """Train a stage and return its EMA model. models: the models of earlier stages."""
        if not models and self.cfg.study.share:
            self._share(stage)
        model = self.trainer(stage, models).fit(self.train_examples, self.to_batch)
        if self.folder.is_main:
            save_lora(model, self.folder.path / "lora" / stage)
        return model

    def trainer(self, stage: str, earlier: Mapping[str, Model]) -> Trainer:
        """The trainer of a stage; earlier: the trained models of the stages before it, by name."""
        return self.setup.trainer(stage, dict(earlier), self.folder)

    def trainers(self) -> list[Trainer]:
        """The trainers of all stages that a run trains, each from the initial weights of the one before; for benchmarks."""
        trainers: dict[str, Trainer] = {}
        for stage in self.stages:
            trainers[stage] = self.trainer(stage, {name: trainer.ema.model for name, trainer in trainers.items()})
        return list(trainers.values())

    @property
    def settings(self) -> dict:
        """The config groups that have a dataclass, as objects by group."""
        return self.setup.settings

    def _setup(self, cached: CacheUse, folder: RunFolder | None = None) -> TrainerSetup:
        validation = Validation(self.cfg, self.parts, self.val_examples, folder or self.folder)
        settle = self._settle if self.cfg.memory.precision == "auto" else None
        rest = (validation, self.logger.log, self.initialise, settle)
        return TrainerSetup(self.cfg, self.parts, self.compute, cached, *rest)

    def _settle(self, model: Model, objective: Objective, schedule: StageSchedule, folder: RunFolder) -> Compute:
        """The precision recorded in the run folder, or else the faster one of a few timed steps.

        Args:
            model: The model of the stage.
            objective: Its training objective.
            schedule: Its steps, batch size and learning rate.
            folder: The folder in which the stage is trained.

        Returns:
            The device with the selected precision.
        """
        folders = [folder] if folder is self.folder else [folder, self.folder]
        stage_cfg, seed = self.settings["stage"], self.cfg.seed
        trial = Trial(model, objective, self.parts.codec, self.train_examples, schedule, stage_cfg, seed, self.to_batch)
        self.compute = settled(self.compute, folders, trial)
        return self.compute

    def _check_later_phases(self) -> None:
        """Raise errors of the evaluation before the first step, not after hours of training."""
        from ragaf_exp.evaluation.readers import check_readers  # slow: it imports scikit-image

        check_readers(self.cfg, self.parts)

    def _record_data(self, folder: RunFolder) -> None:
        """Record the names and sizes of the data files, and checksums of those read so far."""
        if folder.is_main:
            data_record.record(folder.path, self.parts.source)

    def _share(self, stage: str) -> None:
        """Train the first stage once for all members of the study that share it, and link it into this run."""
        newest = load_newest(self.folder.checkpoints, stage, parts=())
        if newest is not None and newest.step == steps_of(self.cfg, stage):
            return
        with shared_stage.lock_shared(self.cfg) as shared:
            data_record.check(shared.path, self.parts.source)
            self._record_data(shared)
            setup = self._setup(self.setup.cached, shared)
            setup.trainer(stage, {}, shared).fit(self.train_examples, self.to_batch)
            shared_stage.link_shared(stage, shared, self.folder)
