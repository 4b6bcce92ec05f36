"""One run from config to report: the stages in order, then evaluation, then the report."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from eval.draws import Draws, fingerprint
from eval.edges import reader_of
from eval.evaluate import Judge, evaluate
from eval.networks import Networks
from eval.validation import validation_scores
from ragaf_exp.assemble import Parts, adopt, assemble, make_model
from ragaf_exp.attention_pictures import save_attention
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import PLACE
from ragaf_exp.config.schema import COARSE, PLAIN, REFINE
from ragaf_exp.data.loader import Examples, collate
from ragaf_exp.errors import UserError
from ragaf_exp.features.fill import prepare as prepare_features
from ragaf_exp.files import write_bytes, write_json
from ragaf_exp.generate import Pipeline
from ragaf_exp.jobs import processes
from ragaf_exp.jobs.stop import STOP, Interrupted
from ragaf_exp.models.model import Model
from ragaf_exp.models.sources import hold_once, load_own
from ragaf_exp.models.tune import carry, choose, save_lora
from ragaf_exp.pictures import TestPictures, fusion_curve, save_png, validation_grid
from ragaf_exp.report import write_report
from ragaf_exp.runfolder import RunFolder
from ragaf_exp.study import stage1
from ragaf_exp.training.checkpoint import load_newest, newest_checksums, save
from ragaf_exp.training.loggers import Silent
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.precision import Compute
from ragaf_exp.training.region_targets import train_regions
from ragaf_exp.training.trainer import Plan, Trainer
from ragaf_exp.training.usage import condition_usage, fusion_weights
from ragaf_exp.watching import watched

ATTENTION = 2  # test items whose attention is drawn over the timesteps
log = logging.getLogger(__name__)
EXAMPLES_MB = 500  # of test examples kept in memory: more of them are prepared again for each figure


def run(cfg: DictConfig) -> RunFolder:
    """Train -> evaluate -> report, continuing whatever an earlier process of the same config left undone."""
    with STOP.listening():
        folder = _started(cfg)
        if folder.done():
            log.info("%s: already finished; another seed or name makes a new run", folder.path)
            if folder.leads and not folder.report.exists():
                write_report(folder.path)
            return folder
        try:
            _stages(cfg, folder)
        finally:
            folder.release()
        return folder


def _started(cfg: DictConfig) -> RunFolder:
    """The run's folder, owned by this process and those that train with it."""
    try:
        processes.wire(Path(cfg.runs).absolute(), cfg.memory.device)
        return RunFolder.create(cfg)
    except Interrupted as stop:  # there is no folder yet to say it in
        if STOP.state() == "preempted":
            STOP.hand_on()
        raise UserError(f"{cfg.runs}: {stop} while it started; the same command continues") from stop


def _stages(cfg: DictConfig, folder: RunFolder) -> None:
    try:
        folder.status("running")
        Experiment(cfg, folder).train()
        if folder.leads:
            evaluate_run(folder, cfg)
            folder.status("done")
            write_report(folder.path)
        processes.together()
    except Interrupted as stop:
        _interrupted(folder, stop)
    except BaseException as error:
        with suppress(OSError):  # on a full disk the status can't be told, and the error itself says more
            folder.status("preempted" if isinstance(error, KeyboardInterrupt) else "failed", error=str(error))
        raise


def _interrupted(folder: RunFolder, stop: Interrupted) -> None:
    """Say why, let go of the run, and queue its job again where SLURM wants the node back."""
    state = STOP.state()
    log.info("%s: %s: %s", folder.path, state, stop)
    folder.status(state, error="what started its process is gone" if STOP.orphaned else None)
    folder.release()
    if STOP.asked and state == "preempted" and folder.leads:
        STOP.hand_on()
    raise UserError(f"{folder.path}: {stop}; the same command continues") from stop


class Experiment:
    """The training half of a run."""

    def __init__(self, cfg: DictConfig, folder: RunFolder):
        self.cfg, self.folder = cfg, folder
        self.settings = {key: OmegaConf.to_object(OmegaConf.merge(schema, cfg[key])) for key, schema in PLAIN.items()}
        self.compute = Compute(cfg.memory.device, cfg.memory.precision)
        with processes.leader_first():
            inherit(cfg, folder)
            self.parts = assemble(cfg, folder)
        self.parts.codec.to(self.compute.device)
        self.train_examples, self.val_examples = self.parts.examples("train"), self.parts.examples("val")
        self._check()
        if cfg.memory.budget > 0 or self.compute.device.type == "cuda":
            from ragaf_exp.plan import launch  # which plans by means of this very class

            launch.check(cfg)  # after what is found out sooner: a plan takes a while
            launch.cap(cfg)
        self.logger = build(cfg.logger, "logger") if folder.leads else Silent()

    def train(self) -> None:
        """Every stage that the config asks for, in order."""
        self.logger.open(self.folder.path, OmegaConf.to_container(self.cfg))
        features = prepare_features(self.cfg, self.parts, self.compute.device)
        if features is not None:
            self.train_examples.collate = features
        coarse = None if COARSE in self.cfg.stage.run else self._adopted()
        for stage in (s for s in (COARSE, REFINE) if s in self.cfg.stage.run):
            if stage == COARSE and self.cfg.study.share:
                self._share()
            trained = self.trainer(stage, coarse).fit(self.train_examples)
            save_lora(trained, self.folder.path / "lora" / stage)
            coarse = trained if stage == COARSE else coarse
        self.logger.close()
        self.folder.status("running", trained=True)

    def _check(self) -> None:
        """What would else be found out after minutes of training: a stage 2 that can't be built, an empty split."""
        with torch.device("meta"):
            make_model(self.parts, REFINE if REFINE in self.cfg.stage.run else COARSE)
        for split in ("train", "val", "test"):
            if not len(items := self.parts.source.split(split)):
                raise UserError(f"data: no items in the {split} split; raise data.{split} or data.{split}_share, "
                                "or give more images")  # fmt: skip
            self.parts.prepare(items[0])

    def _share(self) -> None:
        """Have stage 1 trained once for all members of the study that need the same, and take it over."""
        found = load_newest(self.folder.checkpoints, COARSE, parts=())
        if found is not None and found.step == self.cfg.stage.coarse.steps:
            return
        with stage1.held(self.cfg) as place:
            self.trainer(COARSE, None, place).fit(self.train_examples)
            stage1.adopt(place, self.folder)

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

        def validate(ema: Model, step: int) -> dict[str, float]:
            return self._validate(stage, ema, coarse, objective, step, folder)

        return Trainer(
            plan(self.cfg, stage, self.parts), model, objective, self.parts.codec, folder, self.compute,
            s["stage"], s["optim"], s["task"], s["memory"], self.cfg.seed, validate, self.logger.log,
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
        shown = self.cfg.eval.grid
        rows = _first(self.val_examples, max(shown, self.cfg.eval.validation_drawn))
        models = (ema, None) if stage == COARSE else (coarse, ema)
        drawn = make_pipeline(self.cfg, self.parts, *models, self.compute)(collate(rows)).drawn()
        folder.samples.mkdir(exist_ok=True)
        save_png(folder.samples / f"{stage}-{step:06d}.png", validation_grid(rows[:shown], drawn.first(shown)))
        scores = validation_scores(rows, drawn, self.parts.prepare.sketch) if self.cfg.eval.validation_metrics else {}
        rows = _first(self.val_examples, self.cfg.eval.validation_items)
        size = self.cfg.eval.batch
        batches = [collate(rows[i : i + size]).to(self.compute.device) for i in range(0, len(rows), size)]
        last = plan(self.cfg, stage, self.parts).last
        losses = condition_usage(ema, objective, self.parts.codec, batches, last, self.cfg.seed, self.parts.chunks)
        fusion = {} if ema.ragaf is None else fusion_weights(ema, batches[0], last)
        return losses | scores | fusion

    def _adopted(self) -> Model:
        """Stage 1 that `inherit` copied here."""
        return load_stage(make_model(self.parts, COARSE), self.folder, COARSE).to(self.compute.device)


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
    if not other.tokenizer.exists():
        raise UserError(f"{other.tokenizer}: missing; restore it, or train that run again")
    write_bytes(folder.tokenizer, other.tokenizer.read_bytes())
    save(folder.checkpoints, found, keep=1)


def plan(cfg: DictConfig, stage: str, parts: Parts) -> Plan:
    """Stage 2 is trained on the timesteps that sampling with its strength visits."""
    if stage == COARSE:
        return Plan(stage, cfg.stage.coarse.steps, cfg.stage.coarse.lr, parts.diffusion.timesteps)
    pace = cfg.stage.refine
    last = max(1, round(parts.diffusion.timesteps * pace.strength))
    region_steps = pace.region_steps if train_regions(cfg.loss) else 0  # they have no other loss
    return Plan(stage, region_steps + pace.steps, pace.lr, last, pace.recolour, region_steps, pace.region_batch)


def make_pipeline(
    cfg: DictConfig, parts: Parts, coarse: Model | None, refine: Model | None, compute: Compute
) -> Pipeline:
    pace = cfg.stage.refine
    return Pipeline(coarse, refine, parts.codec, parts.sampler, compute, pace.strength, cfg.seed, parts.chunks)


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
    return model.requires_grad_(False).eval()


def load_run(folder: RunFolder, cfg: DictConfig) -> tuple[Parts, Pipeline]:
    """A finished run's parts and its sampling pipeline."""
    compute = Compute(cfg.memory.device, cfg.memory.precision)
    if not folder.tokenizer.exists():
        raise UserError(f"{folder.tokenizer}: missing; restore it or train again")
    parts = assemble(cfg, folder)
    parts.codec.to(compute.device)
    models: dict[str, Model | None] = {COARSE: None, REFINE: None}
    for stage in models:
        if (folder.checkpoints / stage).exists():
            model = load_stage(make_model(parts, stage), folder, stage)
            if models[COARSE] is not None:
                hold_once(models[COARSE], model)
            models[stage] = model.to(compute.device)
    return parts, make_pipeline(cfg, parts, models[COARSE], models[REFINE], compute)


def evaluate_run(folder: RunFolder, cfg: DictConfig) -> dict[str, Any]:
    """Draw the test split and score it; writes metrics.json, items.jsonl, samples/test and samples/fusion.json."""
    parts, pipeline = load_run(folder, cfg)
    examples = parts.examples("test")
    examples = Examples(_Head(examples.items, cfg.eval.test_items), examples.prepare, EXAMPLES_MB)
    last = pipeline.refine if pipeline.refine is not None else pipeline.coarse
    show = TestPictures(folder.samples, cfg.eval.pictures, last.text)
    draws = Draws(folder.samples / "drawn", _fingerprint(folder, cfg))
    judged = judge(cfg, parts, last)
    content = evaluate(folder, pipeline, examples, cfg.eval.batch, judged, draws, show, parts.source.split("train"))
    show.write_index()
    shown = min(ATTENTION, cfg.eval.pictures)
    draws.once(f"attention-{shown}", lambda: _save_attention(folder, parts, pipeline, _first(examples, shown), last))
    if pipeline.refine is not None:
        batch = collate(_first(examples, cfg.eval.batch)).to(pipeline.compute.device)
        with torch.no_grad():
            regions = pipeline.refine.condition(batch).regions
        write_json(folder.samples / "fusion.json", fusion_curve(pipeline.refine, regions))
    return content


def _save_attention(folder: RunFolder, parts: Parts, pipeline: Pipeline, examples: list, model: Model) -> None:
    """What words attend to over the timesteps, beside the first test items' other pictures."""
    if not examples:
        return
    with watched(model, parts.diffusion) as watch:
        pipeline(collate(examples))
    for row, example in enumerate(examples):
        place = folder.samples / "test" / f"{row:04d}"
        save_attention(place, example, watch.frames(), row, model.text, parts.codec)


def judge(cfg: DictConfig, parts: Parts, model: Model) -> Judge:
    """What images are scored by, as the config has it."""
    settings = OmegaConf.to_object(OmegaConf.merge(PLAIN["eval"], cfg.eval))
    weights = "raw" if cfg.memory.ema == "off" else "ema"
    measured_with = {"weights": weights, "seed": cfg.seed, "split": "test", "resolution": cfg.data.size,
                     "resamples": cfg.eval.bootstrap}  # fmt: skip
    reader = reader_of(parts.prepare.sketch, cfg.eval.edges, cfg.eval.pidinet, cfg.memory.device)
    networks = Networks(settings, cfg.memory.device, cfg.cache.folder, cfg.cache.gigabytes)
    return Judge(reader, networks, model.text.token_spans, parts.codec.downscale, measured_with)


def _fingerprint(folder: RunFolder, cfg: DictConfig) -> str:
    """Of all that decides the drawn images: weights, data, conditions and sampler."""
    held = OmegaConf.to_container(cfg)
    held = {key: value for key, value in held.items() if key not in (*PLACE, "eval", "optim", "loss")}
    return fingerprint(held, cfg.eval.batch, newest_checksums(folder.checkpoints))


class _Head:
    """The first `count` items of a split, all where count is 0."""

    def __init__(self, items, count: int):
        self.items = items
        self.count = min(len(items), count) if count else len(items)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.items[index]


def _first(examples: Examples, count: int) -> list:
    return [examples[i] for i in range(min(count, len(examples)))]
