"""Dry runs: a run's parts and trainer without data, run folder or weights, with every tensor labelled by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import torch
from omegaconf import DictConfig
from torch import nn

from ragaf_exp.assembly.model import init_from_start, make_model, memory_of
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.build import build
from ragaf_exp.config.stages import StageSpec, chain, stage_of, trained
from ragaf_exp.core.types import Batch
from ragaf_exp.models.inputs import ALL
from ragaf_exp.models.model import Model
from ragaf_exp.models.swapping import swapped_weights
from ragaf_exp.plan.dummies import DummyTokenizer, NullRunFolder, largest_batch, planned_size
from ragaf_exp.plan.fake_cuda import FakeCudaCompute
from ragaf_exp.plan.tracker import WORKSPACE, Tracker
from ragaf_exp.training.encoder_cache.features import CacheUse
from ragaf_exp.training.optimizer import inner
from ragaf_exp.training.setup import TrainerSetup
from ragaf_exp.training.trainer import Trainer

EARLIER = "earlier stages"  # label of the weights of earlier stages
REGIONS = "regions"  # the steps that train only the region path


def regional_stage(cfg: DictConfig) -> StageSpec:
    """The stage whose steps of the region path alone are planned: of those that a run trains, that of the largest batch."""
    with_steps = [stage for stage in trained(cfg) if stage.region_steps] or trained(cfg)[-1:]
    return max(reversed(with_steps), key=lambda stage: stage.settings["region_batch"])


class DryRun:
    """A run's parts and trainers without data, run folder or weights. compute: a fake CUDA device, or the CPU."""

    def __init__(self, cfg: DictConfig, compute: Compute):
        self.cfg = cfg
        diffusion = build(cfg.diffusion, "diffusion")
        sampler = build(cfg.sampler, "sampler", diffusion=diffusion)
        tokenizer = DummyTokenizer(cfg.text.get("vocabulary", 1), cfg.text.max_tokens - 1)
        self.parts = Parts(cfg, None, diffusion, sampler, build(cfg.codec, "codec"), None, tokenizer)
        encodes = any(True for _ in self.parts.codec.parameters())
        self.cached = CacheUse(cfg.memory.features != "none" and encodes, cfg.memory.features == "all")
        self.setup = TrainerSetup(cfg, self.parts, compute, self.cached)

    def trainer(self, stage: str, earlier: Mapping[str, Model]) -> Trainer:
        """The trainer of a stage, as a run builds it. earlier: the models of the stages before it, by name."""
        return self.setup.trainer(stage, earlier, NullRunFolder())

    def models(self, stages: Sequence[StageSpec]) -> dict[str, Model]:
        """The trained models of the first stages of the chain; weights that a stage does not train are shared."""
        models = {stage.name: make_model(self.parts, stage.name) for stage in stages}
        for stage in stages:
            if stage.starts_from:
                init_from_start(models[stage.name], models[stage.starts_from].state_dict(), memory_of(self.cfg))
        return {name: model.requires_grad_(False).eval() for name, model in models.items()}

    def batch(self, items: int, model: Model) -> Batch:
        """The largest batch that the config allows, with the encoder outputs that it caches. model: of the stage."""
        height, width = planned_size(self.cfg, model)
        batch = largest_batch(items, height, self.cfg.regions.max_regions, self.parts.task.maps, width)
        codec, text = self.parts.codec, model.text
        if self.cached.latents:
            batch = replace(batch, latent=torch.zeros(codec.latent_shape(batch)))
        if self.cached.texts:
            with torch.no_grad():
                source = self.parts.task.source(batch, ALL) if text.reads_image else None
                images = None if source is None else source.image
                no_text = text([""]) if images is None else text.read([""] * items, None, images)
                batch = replace(batch, text=text.read(batch.captions, None, images), no_text=no_text)
        return batch


class TrainingFixture:
    """A stage's model, trainer and batch, with every tensor labelled by kind.

    Args:
        cfg: The composed config.
        phase: The phase of training: a stage, or REGIONS for the steps of the region path alone.
        compute: The device whose memory use is predicted.
        tracker: Labels the tensors.
    """

    def __init__(self, cfg: DictConfig, phase: str, compute: FakeCudaCompute, tracker: Tracker):
        with tracker.labelling("codec"):
            dry_run = DryRun(cfg, compute)
        self.parts, self.codec = dry_run.parts, dry_run.parts.codec
        stage = regional_stage(cfg) if phase == REGIONS else stage_of(cfg, phase)
        with tracker.labelling(EARLIER):  # used by validation, and the initialisation of the stage
            self.earlier = dry_run.models(chain(cfg)[: stage.number - 1])
        with tracker.labelling("weights"):
            self.trainer = dry_run.trainer(stage.name, self.earlier)
        items = stage.settings["region_batch"] if phase == REGIONS else cfg.stage.batch
        self.make_batch = tracker.labelled("batch", partial(dry_run.batch, model=self.trainer.bare))
        self.batch = self.make_batch(items)
        # no time lies between gradients and update, or a step leaves copies of weights behind that the next one frees
        self.steps_twice = cfg.memory.step_in_backward or cfg.memory.swap > 0
        self.number = 0 if phase == REGIONS else self.trainer.plan.steps - 1
        _label_all(tracker, self.trainer, self.codec, cfg.memory.ema)
        for model in (self.trainer.bare, *self.earlier.values()):
            tracker.exclude(swapped_weights(model))

    def first_step(self, tracker: Tracker) -> None:
        """Run the first step, which allocates the optimizer's state."""
        self.trainer.step(self.number, self.batch)
        self.trainer.metrics_logger.recent.clear()
        self._label_state(tracker)

    def later_step(self, tracker: Tracker) -> None:
        """Run a step after the first, and record its peak.

        It is computed from the first step, before whose update the optimizer's state is allocated: the second has the same
        operations, and all that the first leaves behind is live from its start.
        """
        update = self.trainer.update

        def apply() -> bool:
            with tracker.unrecorded():
                inner(update.optimizer).step()
                self._label_state(tracker)
            return type(update).apply(update)

        tracker.start()
        with nullcontext() if self.steps_twice else wrapped(update, apply=apply):
            self.first_step(tracker)
        if self.steps_twice:
            tracker.start()
            self.trainer.step(self.number, self.batch)
        else:
            tracker.repeat()

    def _label_state(self, tracker: Tracker) -> None:
        states = inner(self.trainer.update.optimizer).state.values()
        tracker.label("optimizer", [v for state in states for v in state.values() if isinstance(v, torch.Tensor)])


def _label_all(tracker: Tracker, trainer: Trainer, codec: nn.Module, ema: str) -> None:
    """Label trained weights, EMA weights and gradients; exclude what is offloaded to main memory."""
    trained = {id(t.untyped_storage()) for t in _tensors(trainer.bare)}
    tracker.label("weights", _tensors(trainer.bare))  # including those shared with earlier stages
    averaged = [t for t in _tensors(trainer.ema.model) if id(t.untyped_storage()) not in trained]
    tracker.exclude(averaged) if ema == "cpu" else tracker.label("average", averaged)
    offloaded = {id(t): t for network in trainer.offloaded.networks for t in _tensors(network)}
    resident = [t for module in (trainer.bare, codec) for t in _tensors(module) if id(t) not in offloaded]
    storages = {id(t.untyped_storage()) for t in resident}  # a storage shared with a resident network is not offloaded
    tracker.exclude([t for t in offloaded.values() if id(t.untyped_storage()) not in storages])
    for parameter in trainer.bare.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda p: None if p.grad is None else tracker.label("gradients", [p.grad])
            )


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextmanager
def track_allocations(tracker: Tracker, trainer: Trainer, codec: nn.Module) -> Iterator[None]:
    """Label the allocations of training steps in the block by the operation that makes them.

    Args:
        tracker: Records allocations.
        trainer: The trainer whose steps run in the block.
        codec: Encodes the images of a step.
    """
    update, accelerator = trainer.update, trainer.accelerator
    with ExitStack() as stack:
        stack.enter_context(wrapped(codec, encode=tracker.labelled("codec", codec.encode)))
        stack.enter_context(wrapped(accelerator, backward=tracker.labelled(WORKSPACE, accelerator.backward)))
        stack.enter_context(wrapped(update.optimizer, step=tracker.labelled("optimizer", update.optimizer.step)))
        stack.enter_context(tracker.labelling("activations"))
        yield


@contextmanager
def wrapped(owner: object, **methods: object) -> Iterator[None]:
    """Replace methods of an object in the block."""
    vars(owner).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(owner)[name]
