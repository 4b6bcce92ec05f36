"""One run from config to report: the stages in order, then evaluation, then the report."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import adopt, make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.build import build
from ragaf_exp.config.doubts import doubts
from ragaf_exp.config.schema import COARSE, PLAIN, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import quick_imports
from ragaf_exp.core.safe_files import make_folder
from ragaf_exp.data.loader import collate
from ragaf_exp.distributed import launch
from ragaf_exp.evaluation.readers import check_readers
from ragaf_exp.experiments import shared_stage1
from ragaf_exp.experiments.extend import continue_sibling
from ragaf_exp.experiments.finished import steps_of
from ragaf_exp.experiments.inherit import inherit
from ragaf_exp.inference.load import load_stage, make_pipeline
from ragaf_exp.models.loading.tuning import carry, choose, save_lora
from ragaf_exp.models.model import Model
from ragaf_exp.runs import data_record, restarts
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder, hand_on
from ragaf_exp.runs.signals import STOP, Interrupted, Stopped
from ragaf_exp.training.condition_usage import condition_usage, fusion_weights
from ragaf_exp.training.encoder_cache.fill import prepare as prepare_features
from ragaf_exp.training.loggers import Silent
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.precision_choice import settled
from ragaf_exp.training.precision_trial import Trial
from ragaf_exp.training.schedule import Plan
from ragaf_exp.training.trainer import Trainer, check_shares

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> RunFolder:
    """Train -> evaluate -> report, continuing whatever an earlier process of the same config left undone."""
    with STOP.listening():
        folder = _started(cfg)
        if folder.done():
            if folder.leads:
                data_record.check_finished(folder.path, cfg.data)
            log.info("%s: already finished; another seed or name makes a new run", folder.path)
            if folder.leads and not (folder.report.exists() and folder.report.stat().st_size):
                after_steps().report.write_report(folder.path)
            return folder
        try:
            _stages(cfg, folder)
        finally:
            folder.release()
        return folder


def _started(cfg: DictConfig) -> RunFolder:
    """The run's folder, owned by this process and those that train with it."""
    try:
        launch.wire(Path(cfg.runs).absolute(), cfg.memory.device)
        if cfg.memory.shard and not launch.several():
            raise UserError("memory.shard=true: needs several processes; see cluster.tasks, or torchrun, or leave it out")
        return RunFolder.create(cfg)
    except Interrupted as stop:  # there is no folder yet to say it in
        if _asked(STOP.state()):
            hand_on(cfg)
        raise UserError(f"{cfg.runs}: {stop} while it started; the same command continues") from stop


def _stages(cfg: DictConfig, folder: RunFolder) -> None:
    try:
        folder.status("running")
        for doubt in doubts(cfg) if folder.leads else ():
            log.warning("%s", doubt)
        Experiment(cfg, folder).train()
        if folder.leads:
            modules = after_steps()
            modules.evaluation.evaluate_run(folder, cfg)
            folder.status("done")
            modules.report.write_report(folder.path)
        launch.together()
        launch.leave()
    except Interrupted as stop:
        _interrupted(folder, stop)
    except BaseException as error:
        STOP.obeyed = True
        if isinstance(error, UserError) and folder.discard():
            raise
        with suppress(OSError):  # on a full disk the status can't be told, and the error itself says more
            folder.status("preempted" if isinstance(error, KeyboardInterrupt) else "failed", error=str(error))
        raise


def _interrupted(folder: RunFolder, stop: Interrupted) -> None:
    """Say why, let go of the run, and queue its job again where SLURM wants the node back."""
    state, error = STOP.state(), "what started its process is gone" if STOP.orphaned else None
    asked = _asked(state)
    if asked and (why := restarts.in_vain(folder.path)):
        folder.status("failed", error=why)
        raise UserError(why) from stop
    log.info("%s: %s: %s", folder.path, state, stop)
    folder.status(state, error=error)
    folder.release()
    if not isinstance(stop, Stopped):  # agreed on at a step's end
        launch.leave()
    if asked:
        STOP.hand_on()
    raise UserError(f"{folder.path}: {stop}; the same command continues") from stop


def _asked(state: str) -> bool:
    """Whether this process is to queue its job again, as SLURM wants the node back: of several that share a run, one."""
    return bool(STOP.asked) and state == "preempted" and launch.leads()


class Experiment:
    """The training half of a run."""

    def __init__(self, cfg: DictConfig, folder: RunFolder):
        self.cfg, self.folder = cfg, folder
        self.settings = {key: OmegaConf.to_object(OmegaConf.merge(schema, cfg[key])) for key, schema in PLAIN.items()}
        self.compute = Compute(cfg.memory.device, cfg.memory.precision)
        with launch.leader_first():
            continue_sibling(cfg, folder)
            inherit(cfg, folder)
            self.parts = assemble(cfg, folder)
        data_record.check(folder.path, self.parts.source)  # in every process, so that all of them end where it differs
        self.parts.codec.to(self.compute.device)
        self.parts.chunks.size = cfg.eval.batch  # a validation, too, draws no more at once
        self.train_examples, self.val_examples = self.parts.examples("train"), self.parts.examples("val")
        self.parts.check_splits()
        self._check_ahead()
        if cfg.memory.budget > 0 or self.compute.device.type == "cuda":
            from ragaf_exp.plan import guard  # which plans by means of this very class

            guard.check(cfg)  # after what is found out sooner: a plan takes a while
            guard.cap(cfg)
        self.logger = build(cfg.logger, "logger") if folder.leads else Silent()
        self._record()

    def _check_ahead(self) -> None:
        """What a later stage or the evaluation would refuse after hours of training is refused before the first step."""
        for stage in self.cfg.stage.run:
            check_shares(plan(self.cfg, stage, self.parts), self.settings["stage"])
        check_readers(self.cfg, self.parts)

    def train(self) -> None:
        """Every stage that the config asks for, in order."""
        self.logger.open(self.folder.path, OmegaConf.to_container(self.cfg))
        features = prepare_features(self.cfg, self.parts, self.compute.device)
        if features is not None:
            self.train_examples.collate = features
        self.folder.made = []  # from here on there is something to continue
        coarse = None
        if COARSE not in self.cfg.stage.run:  # `inherit` copied it here
            coarse = load_stage(make_model(self.parts, COARSE), self.folder, COARSE).to(self.compute.device)
        for stage in (s for s in (COARSE, REFINE) if s in self.cfg.stage.run):
            if stage == COARSE and self.cfg.study.share:
                self._share()
            trained = self.trainer(stage, coarse).fit(self.train_examples)
            if self.folder.leads:
                save_lora(trained, self.folder.path / "lora" / stage)
            coarse = trained if stage == COARSE else coarse
        self.logger.close()
        self._record()
        self.folder.status("running", trained=True)

    def _record(self) -> None:
        """Of the data, with the checksums of what was read so far."""
        if self.folder.leads:
            data_record.record(self.folder.path, self.parts.source)

    def _share(self) -> None:
        """Have stage 1 trained once for all members of the study that need the same, and take it over."""
        found = load_newest(self.folder.checkpoints, COARSE, parts=())
        if found is not None and found.step == self.cfg.stage.coarse.steps:
            return
        with shared_stage1.held(self.cfg) as place:
            data_record.check(place.path, self.parts.source)
            if place.leads:
                data_record.record(place.path, self.parts.source)
            self.trainer(COARSE, None, place).fit(self.train_examples)
            shared_stage1.adopt(place, self.folder)

    def trainer(self, stage: str, coarse: Model | None, folder: RunFolder | None = None) -> Trainer:
        """The trainer of a stage; coarse: stage 1's trained model, from which stage 2 starts. folder: else the run's."""
        s, folder = self.settings, folder or self.folder
        model = make_model(self.parts, stage)
        if stage == REFINE:
            carry(coarse, model)
            model = adopt(model, coarse.state_dict(), s["memory"])
        choose(model, stage, s["memory"])
        seen = coarse if stage == REFINE and self.cfg.stage.refine.coarse_input else None
        objective = Objective(self.parts.diffusion, s["loss"], seen, self.cfg.stage.refine.coarse_steps)
        objective.to(self.compute.device)
        asked = plan(self.cfg, stage, self.parts)
        if self.cfg.memory.precision == "auto":
            places = [folder] if folder is self.folder else [folder, self.folder]
            trial = Trial(model, objective, self.parts.codec, self.train_examples, asked, s["stage"], self.cfg.seed)
            self.compute = settled(self.compute, places, trial)
        return Trainer(
            asked, model, objective, self.parts.codec, folder, self.compute,
            s["stage"], s["optim"], s["task"], s["memory"], self.cfg.seed,
            lambda ema, step: self._validate(stage, ema, coarse, objective, step, folder), self.logger.log,
            self._idle(model, None if seen is not None else coarse),
        )  # fmt: skip

    def _idle(self, model: Model, coarse: Model | None) -> list[nn.Module]:
        """What no training step uses: stage 1's model in stage 2, and encoders whose features are on disk."""
        kept = getattr(self.train_examples, "collate", None)
        latents, texts = (getattr(kept, name, None) for name in ("latents", "texts"))
        found = [coarse, latents and self.parts.codec, texts and model.text]
        return [network for network in found if network is not None]

    def _validate(
        self, stage: str, ema: Model, coarse: Model | None, objective: Objective, step: int, folder: RunFolder
    ) -> dict[str, float]:
        """A grid of samples with their scores, and the loss with the right and with shuffled conditions."""
        modules, shown = after_steps(), self.cfg.eval.grid
        rows = self.val_examples.first(max(shown, self.cfg.eval.validation_drawn))
        models = (ema, None) if stage == COARSE else (coarse, ema)
        drawn = make_pipeline(self.cfg, self.parts, *models, self.compute)(collate(rows)).drawn()
        grid = modules.pictures.validation_grid(rows[:shown], drawn.first(shown))
        modules.pictures.save_png(make_folder(folder.samples) / f"{stage}-{step:06d}.png", grid, own=True)
        scores = {}
        if self.cfg.eval.validation_metrics:
            scores = modules.validation.validation_scores(rows, drawn, self.parts.prepare.sketch)
        rows = self.val_examples.first(self.cfg.eval.validation_items)
        size = self.cfg.eval.batch
        batches = [collate(rows[i : i + size]).to(self.compute.device) for i in range(0, len(rows), size)]
        asked = plan(self.cfg, stage, self.parts)
        batches = [batch.smaller(asked.scale) for batch in batches]
        losses = condition_usage(ema, objective, self.parts.codec, batches, asked.last, self.cfg.seed, self.parts.chunks)
        fusion = {} if ema.ragaf is None else fusion_weights(ema, batches[0], asked.last)
        return losses | scores | fusion


def after_steps() -> SimpleNamespace:
    """The modules of validation, evaluation and report, with all that draws: training steps need none of it.

    All of them at the first validation, so that a run evaluates with the code that it trained with, edited since or not.
    """
    with quick_imports():
        from ragaf_exp import report
        from ragaf_exp.evaluation import run, validation
        from ragaf_exp.viz import panels
    return SimpleNamespace(validation=validation, evaluation=run, pictures=panels, report=report)


def plan(cfg: DictConfig, stage: str, parts: Parts) -> Plan:
    """Stage 2 is trained on the timesteps that sampling with its strength visits."""
    if stage == COARSE:
        pace = cfg.stage.coarse
        return Plan(stage, pace.steps, pace.lr, parts.diffusion.timesteps, scale=pace.scale)
    pace = cfg.stage.refine
    last = max(1, round(parts.diffusion.timesteps * pace.strength))
    steps = steps_of(cfg, stage)
    return Plan(stage, steps, pace.lr, last, pace.recolour, steps - pace.steps, pace.region_batch, pace.region_lr)
