"""A run's parts and trainer without data, folder and weights, each tensor counted as what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.build import build
from ragaf_exp.config.schema import COARSE, PLAIN, REFINE
from ragaf_exp.core.types import Batch
from ragaf_exp.experiments.experiment import Experiment
from ragaf_exp.plan.dummies import LongCaptions, NoFolder, largest_batch
from ragaf_exp.plan.fake_cuda import Pretended
from ragaf_exp.plan.tracker import WORKSPACE, Tracker
from ragaf_exp.training.loggers import Silent
from ragaf_exp.training.optimizer import inner
from ragaf_exp.training.trainer import Trainer

REGIONS = "regions"  # the steps of stage 2 that train the region path alone


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
def told_apart(tracker: Tracker, trainer: Trainer, codec: nn.Module) -> Iterator[None]:
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
