"""The suite's own training step and sampling, run on the meta device under a memory tracker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.assemble import Parts, adopt, make_model, memory_of
from ragaf_exp.config.build import build
from ragaf_exp.config.schema import COARSE, PLAIN, REFINE
from ragaf_exp.experiment import Experiment
from ragaf_exp.models.model import Model
from ragaf_exp.plan.pretend import Pretended, nowhere
from ragaf_exp.plan.stand_in import LongCaptions, NoFolder, largest_batch
from ragaf_exp.plan.tracker import WORKSPACE, Tracker
from ragaf_exp.trained import make_pipeline
from ragaf_exp.training.loggers import Silent
from ragaf_exp.training.optimizer import inner
from ragaf_exp.training.precision import Compute
from ragaf_exp.training.region_targets import train_regions
from ragaf_exp.training.trainer import Trainer
from ragaf_exp.training.usage import condition_usage
from ragaf_exp.types import Batch

REGIONS, VALIDATION, SAMPLING = "regions", "validation", "sampling"
PHASES = (COARSE, REFINE, REGIONS, VALIDATION, SAMPLING)
KINDS = ("weights", "stage 1", "codec", "gradients", "optimizer", "average", "batch", "activations", WORKSPACE)


@dataclass(frozen=True)
class Peak:
    """The peak of one phase. parts: bytes by kind at that moment, multiples of the allocator's 512."""

    phase: str  # coarse, refine, regions (stage 2's steps of the region path alone), validation or sampling
    micro_batch: int
    parts: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


class Rehearsal(Experiment):
    """An experiment without data, folder and weights. compute: a pretended device, or the real processor."""

    def __init__(self, cfg: DictConfig, compute: Compute):
        self.cfg, self.folder, self.compute = cfg, NoFolder(), compute
        self.settings = {key: OmegaConf.to_object(OmegaConf.merge(schema, cfg[key])) for key, schema in PLAIN.items()}
        diffusion = build(cfg.diffusion, "diffusion")
        sampler = build(cfg.sampler, "sampler", diffusion=diffusion)
        tokenizer = LongCaptions(cfg.text.get("vocabulary", 1), cfg.text.max_tokens - 1)
        self.parts = Parts(cfg, None, diffusion, sampler, build(cfg.codec, "codec"), None, tokenizer)
        self.logger = Silent()
        latents = cfg.memory.features != "none" and any(True for _ in self.parts.codec.parameters())
        kept = SimpleNamespace(latents=latents or None, texts=cfg.memory.features == "all" or None)
        self.train_examples = SimpleNamespace(collate=kept)

    def batch(self, items: int, text: nn.Module) -> Batch:
        """The largest that the config allows, with the features that the config keeps on disk."""
        batch = largest_batch(items, self.cfg.data.size, self.cfg.regions.max_regions)
        codec, kept, side = self.parts.codec, self.train_examples.collate, self.cfg.data.size
        if kept.latents:
            size = side // codec.downscale
            batch = replace(batch, latent=torch.zeros(items, codec.channels, size, size))
        if kept.texts:
            with torch.no_grad():
                batch = replace(batch, text=text(batch.captions), no_text=text([""]))
        return batch


def micro_batch(cfg: DictConfig, phase: str = REFINE) -> int:
    """Items of a training step that are on their way at once."""
    batch = cfg.stage.refine.region_batch if phase == REGIONS else cfg.stage.batch
    return -(-batch // cfg.stage.accumulate)


def predict(cfg: DictConfig, precision: str, phases: tuple[str, ...] | None = None) -> list[Peak]:
    """Peaks of every stage that the config trains, and of sampling; no device, no data, no weights.

    precision: no, bf16 or fp16. phases: of those that `phases_of` gives, the ones that are asked for.
    """
    asked, found, short = phases or phases_of(cfg), [], _short(cfg)
    for phase in (phase for phase in PHASES if phase in asked):
        with nowhere():
            compute = Pretended(precision)
            if phase == SAMPLING:
                found.append(sampling_peak(short, compute))
            elif phase == VALIDATION:
                found.append(validation_peak(short, compute))
            else:
                found.append(training_peak(short, phase, compute))
    return found


def phases_of(cfg: DictConfig) -> tuple[str, ...]:
    """What a config's run does, as far as memory differs."""
    regions = REFINE in cfg.stage.run and cfg.stage.refine.region_steps > 0 and train_regions(cfg.loss)
    return (*cfg.stage.run, *([REGIONS] if regions else []), VALIDATION, SAMPLING)


def _short(cfg: DictConfig) -> DictConfig:
    """The config with two micro-batches and two denoising steps: a third of either would find all as it left it."""
    short = OmegaConf.create(OmegaConf.to_container(cfg))
    short.stage.accumulate = min(2, cfg.stage.accumulate)
    short.stage.batch = micro_batch(cfg) * short.stage.accumulate
    short.stage.refine.region_batch = micro_batch(cfg, REGIONS) * short.stage.accumulate
    short.memory.compile = False  # not planned
    short.sampler.steps, short.sampler.scheduler = min(2, cfg.sampler.steps), "ddim"
    for group in ("backbone", "codec", "text", "hint"):  # a network whose folder isn't here is planned by its config
        part = short[group]
        if "weights" in part:
            part.weights, part.source = "none", part.source if _here(part.get("source", "")) else ""
    if "source" in short.diffusion and not _here(short.diffusion.source):
        short.diffusion = {"_target_": "ragaf_exp.diffusion.Diffusion"}
    return short


def _here(source: str) -> bool:
    return source != "" and Path(source).expanduser().is_dir()


def training_peak(cfg: DictConfig, phase: str, compute: Pretended) -> Peak:
    """Of the second optimizer step of a stage: the first makes the optimizer's state."""
    tracker = Tracker(compute.device.type)
    with tracker:
        at = Stand(cfg, phase, compute, tracker)
        with _phases(tracker, at.trainer, at.codec):
            at.step(tracker)
            tracker.start()
            at.trainer.step(at.number, at.batch)
    return Peak(phase, micro_batch(cfg, phase), _parts(tracker))


def validation_peak(cfg: DictConfig, compute: Pretended) -> Peak:
    """Of a validation in the last stage that is trained: beside all that training holds, with every network awake."""
    cfg = OmegaConf.merge(cfg, {"memory": {"offload": False}})
    tracker, stage = Tracker(compute.device.type), REFINE if REFINE in cfg.stage.run else COARSE
    items = min(cfg.eval.batch, max(cfg.eval.grid, cfg.eval.validation_drawn))
    with tracker:
        at = Stand(cfg, stage, compute, tracker)
        with _phases(tracker, at.trainer, at.codec):
            at.step(tracker)
        model = at.trainer.bare if cfg.memory.ema == "cpu" else at.trainer.ema.model  # see Ema.serving
        pipeline = make_pipeline(cfg, at.parts, *((at.coarse, model) if stage == REFINE else (model, None)), compute)
        with tracker.of("batch"):
            drawn, judged = (largest_batch(n, cfg.data.size, cfg.regions.max_regions) for n in (items, cfg.eval.batch))
        tracker.start()
        with torch.no_grad(), tracker.of("activations"):
            pipeline(drawn)
            with compute:
                batches, last = [judged.smaller(at.trainer.plan.scale)], at.trainer.plan.last
                condition_usage(model.eval(), at.trainer.objective, at.codec, batches, last, cfg.seed)
    return Peak(VALIDATION, max(items, cfg.eval.batch), _parts(tracker))


class Stand:
    """Where a stage's training stands: model, trainer and batch, each counted as what it is."""

    def __init__(self, cfg: DictConfig, phase: str, compute: Pretended, tracker: Tracker):
        with tracker.of("codec"):
            rehearsal = Rehearsal(cfg, compute)
        self.parts, self.codec, self.coarse = rehearsal.parts, rehearsal.parts.codec, None
        if phase != COARSE:  # kept for validation, and what stage 2 starts from
            with tracker.of("stage 1"):
                self.coarse = make_model(self.parts, COARSE).requires_grad_(False).eval()
        with tracker.of("weights"):
            self.trainer = rehearsal.trainer(COARSE if phase == COARSE else REFINE, self.coarse)
        with tracker.of("batch"):
            items = cfg.stage.refine.region_batch if phase == REGIONS else cfg.stage.batch
            self.batch = rehearsal.batch(items, self.trainer.bare.text)
        self.number = 0 if phase == REGIONS else self.trainer.plan.steps - 1
        _name(tracker, self.trainer, self.codec, cfg.memory.ema)

    def step(self, tracker: Tracker) -> None:
        """The first step, which makes the optimizer's state."""
        self.trainer.step(self.number, self.batch)
        self.trainer.recent.clear()
        states = inner(self.trainer.update.optimizer).state.values()
        tracker.call("optimizer", [v for state in states for v in state.values() if isinstance(v, torch.Tensor)])


def sampling_peak(cfg: DictConfig, compute: Compute) -> Peak:
    """Of a batch of eval.batch items through both stages."""
    tracker = Tracker(compute.device.type)
    with tracker, torch.no_grad():
        with tracker.of("codec"):
            rehearsal = Rehearsal(cfg, compute)
        models: dict[str, Model | None] = {COARSE: None, REFINE: None}
        with tracker.of("weights"):
            for stage in (COARSE, REFINE) if REFINE in cfg.stage.run else (COARSE,):
                models[stage] = make_model(rehearsal.parts, stage)
        if models[REFINE] is not None:  # weights that stage 2 leaves as they are count once
            adopt(models[REFINE], models[COARSE].state_dict(), memory_of(cfg))
        for model in filter(None, models.values()):
            model.requires_grad_(False).eval()
        with tracker.of("batch"):
            batch = largest_batch(cfg.eval.batch, cfg.data.size, cfg.regions.max_regions)
        pipeline = make_pipeline(cfg, rehearsal.parts, models[COARSE], models[REFINE], compute)
        codec = rehearsal.parts.codec
        tracker.start()
        with _wrapped(codec, decode=tracker.during("codec", codec.decode)), tracker.of("activations"):
            pipeline(batch)
    return Peak(SAMPLING, cfg.eval.batch, _parts(tracker))


def _parts(tracker: Tracker) -> dict[str, int]:
    return {kind: tracker.at_peak[kind] for kind in KINDS if tracker.at_peak[kind] > 0}


def _name(tracker: Tracker, trainer: Trainer, codec: nn.Module, ema: str) -> None:
    """Tell the averaged weights from the trained, and what rests in main memory from what is on the device."""
    trained = {id(t.untyped_storage()) for t in _tensors(trainer.bare)}
    tracker.call("weights", _tensors(trainer.bare))  # those that stage 1 shares, too
    mean = [t for t in _tensors(trainer.ema.model) if id(t.untyped_storage()) not in trained]
    tracker.away(mean) if ema == "cpu" else tracker.call("average", mean)
    resting = {id(t): t for network in trainer.resting.networks for t in _tensors(network)}
    stays = [t for module in (trainer.bare, codec) for t in _tensors(module) if id(t) not in resting]
    stays = {id(t.untyped_storage()) for t in stays}  # a network that rests leaves behind what others hold, too
    tracker.away([t for t in resting.values() if id(t.untyped_storage()) not in stays])
    for parameter in trainer.bare.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p: None if p.grad is None else tracker.call("gradients", [p.grad])
            )


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextmanager
def _phases(tracker: Tracker, trainer: Trainer, codec: nn.Module) -> Iterator[None]:
    """While open, what a training step makes is told apart by the phase that makes it."""
    update, accelerator = trainer.update, trainer.accelerator
    with ExitStack() as stack:
        stack.enter_context(_wrapped(codec, encode=tracker.during("codec", codec.encode)))
        stack.enter_context(_wrapped(accelerator, backward=tracker.during(WORKSPACE, accelerator.backward)))
        stack.enter_context(_wrapped(update.optimizer, step=tracker.during("optimizer", update.optimizer.step)))
        stack.enter_context(tracker.of("activations"))
        yield


@contextmanager
def _wrapped(owner: object, **methods: object) -> Iterator[None]:
    """While open, an object has other methods."""
    vars(owner).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(owner)[name]
