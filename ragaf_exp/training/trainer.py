"""The trainer of all stages: steps, validation, logging, checkpoints, resumption."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from tqdm import tqdm

from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import Memory, Optim, Stage
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import generator
from ragaf_exp.core.types import Batch
from ragaf_exp.data.buckets import bucket_order, groups_of
from ragaf_exp.data.curriculum import eased, easy_first
from ragaf_exp.data.loader import Examples, batch_order, collate, step_loader, workers_watched
from ragaf_exp.distributed import collectives, launch
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.loading.sources import load_own, own_state, sources_of
from ragaf_exp.models.model import Model
from ragaf_exp.runs import checkpoints, metrics_jsonl
from ragaf_exp.runs.checkpoints import Checkpoint
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.signals import STOP, Interrupted, Stopped
from ragaf_exp.tasks.base import Task
from ragaf_exp.training.ema import Ema
from ragaf_exp.training.memory import lay_out, save_memory
from ragaf_exp.training.metrics_log import MetricsLogger
from ragaf_exp.training.micro_batches import StepBatch
from ragaf_exp.training.objective import Objective, TrainingStep
from ragaf_exp.training.offload import OffloadedModules
from ragaf_exp.training.oom_retry import OomRetry
from ragaf_exp.training.schedule import StageSchedule
from ragaf_exp.training.sharding import Sharded, finite, parts_of, shard, shards, whole
from ragaf_exp.training.step_noise import StepNoise, sample_step_noise
from ragaf_exp.training.step_size import batch_sizes
from ragaf_exp.training.update import Update

log = logging.getLogger(__name__)


def check_shares(stage: str, stage_cfg: Stage, region_steps: int, region_batch: int) -> None:
    """Raise UserError unless the items of a step can be divided equally among the processes.

    Args:
        stage: Name of the stage.
        stage_cfg: Group `stage`: items of a step, or the tokens that limit them, which are divided equally.
        region_steps: Number of its steps of the region path alone.
        region_batch: Items of such a step.
    """
    items = {} if stage_cfg.tokens else {"batch": stage_cfg.batch}
    if region_steps:
        items[f"{stage}.region_batch"] = region_batch
    for key, number in items.items():
        if number % collectives.count():
            raise UserError(f"stage.{key}={number}: must be a multiple of the {collectives.count()} processes")


@dataclass(frozen=True)
class Settings:
    """Config groups as dataclasses, the task, and the seed."""

    stage: Stage
    optim: Optim
    task: Task
    memory: Memory
    seed: int


@dataclass(frozen=True)
class Networks:
    """The networks of a stage.

    Args:
        model: The model; parameters that require a gradient are trained.
        objective: The training objective.
        codec: Encodes images to latents.
        idle: Networks that no training step runs, which may be offloaded to main memory.
    """

    model: Model
    objective: Objective
    codec: Codec
    idle: Sequence[nn.Module] = ()


@dataclass(frozen=True)
class Hooks:
    """Callbacks of the trainer.

    Args:
        validate: Called with (EMA model, step) every stage.validate_every steps; returns metrics to log.
        on_log: Called with (stage, step, metrics).
    """

    validate: Callable[[nn.Module, int], dict[str, float]]
    on_log: Callable[[str, int, dict[str, float]], None]


class Trainer:
    """Trains the model of one stage.

    Args:
        plan: Steps and learning rates.
        networks: The model, its objective and the codec.
        folder: The run folder.
        compute: Device and precision.
        settings: Config groups, task and seed.
        hooks: Validation and logging callbacks.
    """

    def __init__(
        self, plan: StageSchedule, networks: Networks, folder: RunFolder, compute: Compute, settings: Settings, hooks: Hooks
    ):
        optim, memory, model = settings.optim, settings.memory, networks.model
        self.plan, self.objective, self.codec, self.folder = plan, networks.objective, networks.codec, folder
        self.compute, self.stage_cfg, self.optim, self.task = compute, settings.stage, optim, settings.task
        self.seed, self.validate, self.token_side = settings.seed, hooks.validate, model.token_side
        self.spans = self.objective.needs_spans(model)
        # runs of a sweep, or a run and its memory plan, may differ in precision and device within one process
        AcceleratorState._reset_state(reset_partial_state=True)
        # accelerate scales losses on some devices only, so `Update` does it for float16 on all devices
        mixed = "no" if compute.precision == "fp16" else compute.precision
        self.accelerator = Accelerator(cpu=compute.device.type != "cuda", mixed_precision=mixed)
        check_shares(plan.stage, self.stage_cfg, plan.region_steps, plan.region_batch)
        self.bare = lay_out(model, memory)
        self.sharded: Sharded | None = None
        self.ema: Ema
        if shards(memory):
            self.sharded, self.ema = shard(model, optim.ema, memory.ema, compute.device)
        else:
            self.ema = Ema(model, optim.ema, memory.ema).to(compute.device)
        self.update = Update(save_memory(model, memory), plan.lr, optim, memory, compute, self.accelerator)
        self.model = self.update.prepared
        # FSDP requires a call of the root, which calls the objective
        losses = partial(self.objective, self.model) if self.sharded is None else partial(self.sharded, self.objective)
        self.training_step = TrainingStep(losses, self.update, self.ema, compute)
        self.offloaded = OffloadedModules(networks.idle if memory.offload else (), compute.device)
        in_pieces = not memory.step_in_backward
        ranks, accumulate = collectives.count(), self.stage_cfg.accumulate
        self.oom_retry = OomRetry(folder, plan.stage, accumulate, ranks, self.bare.parameters, in_pieces)
        self.metrics_logger = MetricsLogger(plan, folder, optim, self.update, compute.device, hooks.on_log)

    def fit(self, examples: Examples, to_batch: Callable[..., Batch] = collate) -> nn.Module:
        """Train from the newest checkpoint, or from scratch, to the last step.

        Args:
            examples: The training split.
            to_batch: Collates examples; the encoder cache also adds features.

        Returns:
            The EMA model.
        """
        start = self._restore()
        if start and self._validates(start) and not self.folder.validated(self.plan.stage, start):
            self.ema.gather()
            self._validate(start)
        if start == self.plan.steps:
            return self.ema.finish(self.compute.device)
        self.folder.rewind(self.plan.stage, start)
        order, pin = self._order(examples, start), self.compute.device.type == "cuda"
        loader = step_loader(examples, order, self.stage_cfg.workers, start, self.spans, pin, to_batch)
        bar = tqdm(loader, desc=f"stage {self.plan.stage}", initial=start, total=self.plan.steps, mininterval=1.0,
                   disable=not self.folder.is_main, unit="step")  # fmt: skip
        if self.folder.is_main:
            self._log_start(examples)
        self.started_at = time.monotonic()
        self.metrics_logger.resume()
        with STOP.deferred(), workers_watched():
            for step, batch in enumerate(bar, start):
                self.step(step, batch.to(self.compute.device))
                self._after(step + 1, bar)
        return self.ema.finish(self.compute.device)

    def _log_start(self, examples: Examples) -> None:
        """Log the numbers of items and trained parameters, the device and the precision."""
        trained = sum(p.numel() for p in self.bare.parameters() if p.requires_grad)
        log.info("stage %s: %s items, %s parameters trained, %s", self.plan.stage, f"{len(examples):,}", f"{trained:,}",
                 self.compute)  # fmt: skip
        if shortened := self.plan.shortened(self.optim):
            log.info("%s", shortened)

    def _order(self, examples: Examples, start: int) -> Iterator[list[int]]:
        """Yield the indices of this process's share of every batch from step `start` on."""
        middle, end = self.plan.region_steps, self.plan.steps
        easy = easy_first(examples) if self.stage_cfg.curriculum else None
        groups = groups_of(examples.items)
        whole = batch_sizes(examples, groups, self.stage_cfg, self.token_side)
        regions = [self.plan.region_batch] * len(groups)
        for batches, steps in ((regions, range(start, middle)), (whole, range(max(start, middle), end))):
            share = (self.seed, steps, collectives.rank(), collectives.count())
            one_group = len(groups) == 1
            order = batch_order(len(examples), batches[0], *share) if one_group else bucket_order(groups, batches, *share)
            yield from order if easy is None else eased(order, steps, easy, self.stage_cfg.curriculum * end)

    def step(self, step: int, batch: Batch) -> None:
        """Take one optimizer step on this process's share of the batch, at the resolution of the data."""
        batch = batch.smaller(self.plan.scale)
        self.update.set_rate(self.plan.lr_at(step, self.optim))
        regions_only = step < self.plan.region_steps
        noise = self._sample_noise(step, self.codec.latent_shape(batch)).to(batch.image.device)
        step_batch = StepBatch(batch, noise, self.codec.encode, regions_only, step / self.plan.steps, launch.mean,
                               collectives.previous_item)  # fmt: skip
        kind = "regions" if regions_only else "whole"
        losses = self.oom_retry.run(
            step, kind, len(batch), lambda size: self.training_step.descend(step_batch.micro_batches(size))
        )
        self.metrics_logger.recent.append(losses)
        self.oom_retry.retry(step, lambda: self.training_step.average(step), self.ema.means)

    def _sample_noise(self, step: int, shape: torch.Size) -> StepNoise:
        """Sample noise for the batch of all processes and return the rows of this process."""
        full = torch.Size((shape[0] * collectives.count(), *shape[1:]))
        rng = generator(self.seed, "train", self.plan.stage, step)
        starts = self.objective.start_sampler is not None
        process = self.objective.process
        noise = sample_step_noise(process, full, self.plan.last, self.task.dropout, self.plan.recolour, rng, starts)
        return noise.rows(slice(collectives.rank(), None, collectives.count()))

    def _after(self, done: int, bar: tqdm) -> None:
        """Log, validate and save after `done` steps. The next process repeats a validation that a signal interrupts."""
        last = done == self.plan.steps
        switch = done == self.plan.region_steps  # later steps have other losses
        stop_signal = STOP.agreed()
        out_of_time = (
            self.stage_cfg.max_seconds > 0
            and collectives.all_reduce_max(time.monotonic() - self.started_at) > self.stage_cfg.max_seconds
        )
        save = last or stop_signal or out_of_time or done % self.stage_cfg.checkpoint_every == 0
        if switch or save or done % self.stage_cfg.log_every == 0:
            metrics = self.metrics_logger.losses(done)
            bar.set_postfix(loss=f"{metrics['loss']:.4f}", refresh=False)
        if not stop_signal and self._validates(done):
            self.ema.gather()  # a collective operation, which must not be interrupted
            with suppress(Stopped), STOP.deferred(only=False):
                self._validate(done)
            stop_signal = STOP.agreed()
        if save or stop_signal:
            self._save(done)
        if stop_signal or (out_of_time and not last):
            why = f"by {stop_signal}" if stop_signal else f"after {self.stage_cfg.max_seconds:g} s"
            raise Interrupted(f"stage {self.plan.stage} stopped at step {done} {why}")

    def _validates(self, done: int) -> bool:
        return done == self.plan.steps or done % self.stage_cfg.validate_every == 0

    def _validate(self, done: int) -> None:
        """Validate the gathered average in the main process."""
        if self.folder.is_main:
            with self.offloaded.on_device(), self.compute, self.ema.serving() as model:
                metrics = self.validate(model, done)
            self.metrics_logger.validation(done, metrics)
        self.metrics_logger.resume()

    def _save(self, done: int) -> None:
        if not finite(self.bare):
            self.metrics_logger.diverged(done)  # the last gradient was not finite; do not save such weights
        self.folder.check_owned()
        self.ema.gather()
        is_main = self.folder.is_main
        model, moments = whole(own_state(self.bare), is_main), whole(self.update.tensors(), is_main)
        if is_main:
            content = Checkpoint(self.plan.stage, done, model, own_state(self.ema.model), moments,
                                 sources_of(self.bare), self.update.numbers())  # fmt: skip
            metrics_jsonl.keep(self.folder.curves)
            checkpoints.save(self.folder.checkpoints, content, self.stage_cfg.keep)
            self.folder.saved()
            self.folder.mark_progress()
        launch.barrier()

    def _restore(self) -> int:
        self.oom_retry.restore()
        checkpoint = checkpoints.load_newest(self.folder.checkpoints, self.plan.stage)
        if checkpoint is None:
            return 0
        if self.folder.is_main:
            checkpoints.prune(self.folder.checkpoints, checkpoint, self.stage_cfg.keep)
        try:
            load_own(self.bare, parts_of(checkpoint.model, self.bare), checkpoint.sources)
            load_own(self.ema.model, checkpoint.ema, checkpoint.sources)
        except RuntimeError as error:
            raise UserError(f"{self.folder.checkpoints}: made by another version of the model; "
                            f"train again in another folder (name=...)") from error  # fmt: skip
        self.ema.scatter()
        self.update.restore(checkpoint.optimizer, checkpoint.numbers)
        level = logging.INFO if self.folder.is_main else logging.DEBUG
        log.log(level, "stage %s: continuing from step %d of %d", self.plan.stage, checkpoint.step, self.plan.steps)
        return checkpoint.step
