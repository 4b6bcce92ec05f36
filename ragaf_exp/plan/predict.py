"""Predicts peak memory by running the real training step and sampling on the meta device under a memory tracker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.model import memory_of
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.stages import chain, trained
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.models.model import Model
from ragaf_exp.models.swapping import swappable_blocks, swapped_weights
from ragaf_exp.plan.dry_run import EARLIER, REGIONS, DryRun, TrainingFixture, regional_stage, track_allocations, wrapped
from ragaf_exp.plan.dummies import largest_batch, planned_size
from ragaf_exp.plan.fake_cuda import FakeCudaCompute, meta_device
from ragaf_exp.plan.tracker import WORKSPACE, Tracker
from ragaf_exp.plan.unloaded import step_items, unloaded
from ragaf_exp.training.condition_usage import condition_usage
from ragaf_exp.training.losses.region_targets import train_regions

VALIDATION, SAMPLING = "validation", "sampling"
KINDS = ("weights", EARLIER, "codec", "gradients", "optimizer", "average", "batch", "activations", WORKSPACE)


@dataclass(frozen=True)
class Peak:
    """The peak of one phase. parts: bytes by kind at the peak, in the allocator's multiples of 512."""

    phase: str  # a stage, regions (the steps that train only the region path), validation or sampling
    micro_batch: int
    parts: dict[str, int]
    blocks: tuple[int, ...] = ()  # bytes of each block that memory.swap could keep in main memory

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


def micro_batch(cfg: DictConfig, phase: str = "") -> int:
    """Items in one micro-batch of a training step, of the whole model or in the phase REGIONS."""
    batch = regional_stage(cfg).settings["region_batch"] if phase == REGIONS else step_items(cfg)
    return -(-batch // cfg.stage.accumulate)


def predict(cfg: DictConfig, precision: str, phases: tuple[str, ...] | None = None) -> list[Peak]:
    """Predict the peaks of training, validation and sampling, without a device, data or weights.

    Args:
        cfg: The config of the run.
        precision: no, bf16 or fp16.
        phases: The phases to predict, all of `phases_of` by default.

    Returns:
        One peak per phase, in the order of `phases_of`.
    """
    peaks, short = [], planned_config(cfg)
    for phase in in_order(cfg, phases or phases_of(cfg)):
        with meta_device():
            compute = FakeCudaCompute(precision)
            if phase == SAMPLING:
                peaks.append(sampling_peak(short, compute))
            elif phase == VALIDATION:
                peaks.append(validation_peak(short, compute))
            else:
                peaks.append(training_peak(short, phase, compute))
    return peaks


def phases_of(cfg: DictConfig) -> tuple[str, ...]:
    """The phases of a config's run that differ in memory."""
    stages = trained(cfg)
    regions = any(stage.region_steps > 0 for stage in stages) and train_regions(cfg.loss)
    return (*(stage.name for stage in stages), *([REGIONS] if regions else []), VALIDATION, SAMPLING)


def in_order(cfg: DictConfig, phases: Collection[str]) -> list[str]:
    """Sort phases: the stages in their order, then the others."""
    return [p for p in (*(stage.name for stage in chain(cfg)), REGIONS, VALIDATION, SAMPLING) if p in phases]


def planned_config(cfg: DictConfig) -> DictConfig:
    """The config with two micro-batches and two denoising steps: further ones do not change the peak."""
    short = unloaded(cfg)
    short.stage.accumulate = min(2, cfg.stage.accumulate)
    short.stage.batch, short.stage.tokens = micro_batch(cfg) * short.stage.accumulate, 0
    short.stage[regional_stage(cfg).name].region_batch = micro_batch(cfg, REGIONS) * short.stage.accumulate
    short.memory.compile = False  # not planned
    short.sampler.steps = min(2, cfg.sampler.steps)
    return short


def one_micro_batch(cfg: DictConfig) -> DictConfig:
    """The config with one micro-batch per step, which leaves the same behind as several."""
    return OmegaConf.merge(cfg, {"stage": {"accumulate": 1, "batch": micro_batch(cfg)}})


def training_peak(cfg: DictConfig, phase: str, compute: FakeCudaCompute) -> Peak:
    """The peak of a stage's optimizer step after the first, which allocates the optimizer's state.

    Args:
        cfg: A config from `planned_config`.
        phase: A stage, or regions.
        compute: The emulated device.

    Returns:
        The peak of the step.
    """
    tracker = Tracker(compute.device.type)
    with tracker:
        fixture = TrainingFixture(cfg, phase, compute, tracker)
        with track_allocations(tracker, fixture.trainer, fixture.codec):
            fixture.later_step(tracker)
    return Peak(phase, micro_batch(cfg, phase), _parts(tracker), _blocks(cfg, fixture.trainer.bare))


def validation_peak(cfg: DictConfig, compute: FakeCudaCompute) -> Peak:
    """The peak of validation in the last trained stage, on top of the training memory, with all networks on the device."""
    cfg = OmegaConf.merge(cfg, {"memory": {"offload": False}})
    tracker, stage = Tracker(compute.device.type), trained(cfg)[-1]
    items = min(cfg.eval.batch, max(cfg.eval.grid, cfg.eval.validation_drawn))
    with tracker:
        fixture = TrainingFixture(one_micro_batch(cfg), stage.name, compute, tracker)
        with track_allocations(tracker, fixture.trainer, fixture.codec):
            fixture.first_step(tracker)
        fixture.batch = fixture.make_batch(cfg.stage.batch)
        model = fixture.trainer.bare if cfg.memory.ema == "cpu" else fixture.trainer.ema.model  # see Ema.serving
        pipeline = make_pipeline(cfg, fixture.parts, {**fixture.earlier, stage.name: model}, compute)
        with tracker.labelling("batch"):
            height, width = planned_size(cfg, model)
            task = fixture.parts.task
            further = (height, cfg.regions.max_regions, task.maps, width)
            sampled, scored = (largest_batch(n, *further) for n in (items, cfg.eval.batch))
        tracker.start()
        with torch.no_grad(), tracker.labelling("activations"):
            pipeline(sampled)
            with compute:
                batches, last = [scored.smaller(fixture.trainer.plan.scale)], fixture.trainer.plan.last
                of_run = (last, cfg.seed, task.conditions)
                condition_usage(model.eval(), fixture.trainer.objective, fixture.codec, batches, *of_run)
    return Peak(VALIDATION, max(items, cfg.eval.batch), _parts(tracker), _blocks(cfg, fixture.trainer.bare))


def sampling_peak(cfg: DictConfig, compute: Compute) -> Peak:
    """The peak of sampling eval.batch items with all stages."""
    tracker = Tracker(compute.device.type)
    with tracker, torch.no_grad():
        with tracker.labelling("codec"):
            dry_run = DryRun(cfg, compute)
        with tracker.labelling("weights"):
            models = dry_run.models(chain(cfg))
        for model in models.values():
            tracker.exclude(swapped_weights(model))
        with tracker.labelling("batch"):
            height, width = planned_size(cfg, next(iter(models.values())))
            batch = largest_batch(cfg.eval.batch, height, cfg.regions.max_regions, dry_run.parts.task.maps, width)
        pipeline = make_pipeline(cfg, dry_run.parts, models, compute)
        codec = dry_run.parts.codec
        tracker.start()
        with wrapped(codec, decode=tracker.labelled("codec", codec.decode)), tracker.labelling("activations"):
            pipeline(batch)
    return Peak(SAMPLING, cfg.eval.batch, _parts(tracker), _blocks(cfg, next(iter(models.values()))))


def _blocks(cfg: DictConfig, model: Model) -> tuple[int, ...]:
    return swappable_blocks(model.backbone, memory_of(cfg))


def _parts(tracker: Tracker) -> dict[str, int]:
    return {kind: tracker.at_peak[kind] for kind in KINDS if tracker.at_peak[kind] > 0}
