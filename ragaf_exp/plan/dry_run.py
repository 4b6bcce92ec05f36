"""A run's parts and trainer without data, folder and weights, each tensor counted as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from omegaconf import DictConfig
from torch import nn

from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.build import build
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.types import Batch
from ragaf_exp.models.model import Model
from ragaf_exp.plan.dummies import DummyTokenizer, NullRunFolder, largest_batch
from ragaf_exp.plan.fake_cuda import FakeCudaCompute
from ragaf_exp.plan.tracker import WORKSPACE, Tracker
from ragaf_exp.training.encoder_cache.features import CacheUse
from ragaf_exp.training.optimizer import inner
from ragaf_exp.training.setup import TrainerSetup
from ragaf_exp.training.trainer import Trainer

REGIONS = "regions"  # the steps of stage 2 that train the region path alone


class DryRun:
    """A run's parts and trainers without data, folder and weights. compute: a fake device, or the real processor."""

    def __init__(self, cfg: DictConfig, compute: Compute):
        self.cfg = cfg
        diffusion = build(cfg.diffusion, "diffusion")
        sampler = build(cfg.sampler, "sampler", diffusion=diffusion)
        tokenizer = DummyTokenizer(cfg.text.get("vocabulary", 1), cfg.text.max_tokens - 1)
        self.parts = Parts(cfg, None, diffusion, sampler, build(cfg.codec, "codec"), None, tokenizer)
        encodes = any(True for _ in self.parts.codec.parameters())
        self.cached = CacheUse(cfg.memory.features != "none" and encodes, cfg.memory.features == "all")
        self.setup = TrainerSetup(cfg, self.parts, compute, self.cached)

    def trainer(self, stage: str, coarse: Model | None) -> Trainer:
        """As the runner makes it."""
        return self.setup.trainer(stage, coarse, NullRunFolder())

    def batch(self, items: int, text: nn.Module) -> Batch:
        """The largest that the config allows, with the encoder outputs that the config caches."""
        batch = largest_batch(items, self.cfg.data.size, self.cfg.regions.max_regions)
        codec, side = self.parts.codec, self.cfg.data.size
        if self.cached.latents:
            size = side // codec.downscale
            batch = replace(batch, latent=torch.zeros(items, codec.channels, size, size))
        if self.cached.texts:
            with torch.no_grad():
                batch = replace(batch, text=text(batch.captions), no_text=text([""]))
        return batch


class TrainingFixture:
    """Where a stage's training stands: model, trainer and batch, each counted as what it is."""

    def __init__(self, cfg: DictConfig, phase: str, compute: FakeCudaCompute, tracker: Tracker):
        with tracker.of("codec"):
            rehearsal = DryRun(cfg, compute)
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
        self.trainer.journal.recent.clear()
        states = inner(self.trainer.update.optimizer).state.values()
        tracker.call("optimizer", [v for state in states for v in state.values() if isinstance(v, torch.Tensor)])


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
def track_allocations(tracker: Tracker, trainer: Trainer, codec: nn.Module) -> Iterator[None]:
    """While open, what a training step makes is told apart by the phase that makes it."""
    update, accelerator = trainer.update, trainer.accelerator
    with ExitStack() as stack:
        stack.enter_context(wrapped(codec, encode=tracker.during("codec", codec.encode)))
        stack.enter_context(wrapped(accelerator, backward=tracker.during(WORKSPACE, accelerator.backward)))
        stack.enter_context(wrapped(update.optimizer, step=tracker.during("optimizer", update.optimizer.step)))
        stack.enter_context(tracker.of("activations"))
        yield


@contextmanager
def wrapped(owner: object, **methods: object) -> Iterator[None]:
    """While open, an object has other methods."""
    vars(owner).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(owner)[name]
