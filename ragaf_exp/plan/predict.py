"""The suite's own training step and sampling, run on the meta device under a memory tracker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.model import init_refine_from_coarse, make_model, memory_of
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.models.model import Model
from ragaf_exp.plan.dry_run import REGIONS, DryRun, TrainingFixture, track_allocations, wrapped
from ragaf_exp.plan.dummies import largest_batch
from ragaf_exp.plan.fake_cuda import FakeCudaCompute, meta_device
from ragaf_exp.plan.tracker import WORKSPACE, Tracker
from ragaf_exp.training.condition_usage import condition_usage
from ragaf_exp.training.losses.region_targets import train_regions

VALIDATION, SAMPLING = "validation", "sampling"
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


def micro_batch(cfg: DictConfig, phase: str = REFINE) -> int:
    """Items of a training step that are on their way at once."""
    batch = cfg.stage.refine.region_batch if phase == REGIONS else cfg.stage.batch
    return -(-batch // cfg.stage.accumulate)


def predict(cfg: DictConfig, precision: str, phases: tuple[str, ...] | None = None) -> list[Peak]:
    """Peaks of every stage that the config trains, and of sampling; no device, no data, no weights.

    precision: no, bf16 or fp16. phases: of those that `phases_of` gives, the ones that are asked for.
    """
    asked, found, short = phases or phases_of(cfg), [], planned_config(cfg)
    for phase in (phase for phase in PHASES if phase in asked):
        with meta_device():
            compute = FakeCudaCompute(precision)
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


def planned_config(cfg: DictConfig) -> DictConfig:
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
        short.diffusion = {"_target_": "ragaf_exp.diffusion.process.Diffusion"}
    return short


def _here(source: str) -> bool:
    return source != "" and Path(source).expanduser().is_dir()


def training_peak(cfg: DictConfig, phase: str, compute: FakeCudaCompute) -> Peak:
    """Of the second optimizer step of a stage: the first makes the optimizer's state."""
    tracker = Tracker(compute.device.type)
    with tracker:
        at = TrainingFixture(cfg, phase, compute, tracker)
        with track_allocations(tracker, at.trainer, at.codec):
            at.step(tracker)
            tracker.start()
            at.trainer.step(at.number, at.batch)
    return Peak(phase, micro_batch(cfg, phase), _parts(tracker))


def validation_peak(cfg: DictConfig, compute: FakeCudaCompute) -> Peak:
    """Of a validation in the last stage that is trained: beside all that training holds, with every network awake."""
    cfg = OmegaConf.merge(cfg, {"memory": {"offload": False}})
    tracker, stage = Tracker(compute.device.type), REFINE if REFINE in cfg.stage.run else COARSE
    items = min(cfg.eval.batch, max(cfg.eval.grid, cfg.eval.validation_drawn))
    with tracker:
        at = TrainingFixture(cfg, stage, compute, tracker)
        with track_allocations(tracker, at.trainer, at.codec):
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


def sampling_peak(cfg: DictConfig, compute: Compute) -> Peak:
    """Of a batch of eval.batch items through both stages."""
    tracker = Tracker(compute.device.type)
    with tracker, torch.no_grad():
        with tracker.of("codec"):
            rehearsal = DryRun(cfg, compute)
        models: dict[str, Model | None] = {COARSE: None, REFINE: None}
        with tracker.of("weights"):
            for stage in (COARSE, REFINE) if REFINE in cfg.stage.run else (COARSE,):
                models[stage] = make_model(rehearsal.parts, stage)
        if models[REFINE] is not None:  # weights that stage 2 leaves as they are count once
            init_refine_from_coarse(models[REFINE], models[COARSE].state_dict(), memory_of(cfg))
        for model in filter(None, models.values()):
            model.requires_grad_(False).eval()
        with tracker.of("batch"):
            batch = largest_batch(cfg.eval.batch, cfg.data.size, cfg.regions.max_regions)
        pipeline = make_pipeline(cfg, rehearsal.parts, models[COARSE], models[REFINE], compute)
        codec = rehearsal.parts.codec
        tracker.start()
        with wrapped(codec, decode=tracker.during("codec", codec.decode)), tracker.of("activations"):
            pipeline(batch)
    return Peak(SAMPLING, cfg.eval.batch, _parts(tracker))


def _parts(tracker: Tracker) -> dict[str, int]:
    return {kind: tracker.at_peak[kind] for kind in KINDS if tracker.at_peak[kind] > 0}
