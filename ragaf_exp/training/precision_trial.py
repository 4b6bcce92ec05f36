"""A training step without an update, on which precisions are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from ragaf_exp.compute.device import Compute, kernels
from ragaf_exp.config.schema import Stage
from ragaf_exp.core.randomness import generator
from ragaf_exp.core.types import Batch
from ragaf_exp.data.buckets import same_size
from ragaf_exp.data.loader import Examples, collate
from ragaf_exp.distributed import collectives
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.model import Model
from ragaf_exp.training.micro_batches import MicroBatch
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.schedule import StageSchedule
from ragaf_exp.training.step_noise import sample_step_noise
from ragaf_exp.training.step_size import batch_sizes

DISTINCT = 4  # number of prepared items, which the micro-batch repeats


class Trial:
    """Forward and backward pass on a micro-batch of the run's size, since smaller ones may rank precisions differently.

    Args:
        model: The model of the stage, on the CPU.
        objective: Its training objective.
        codec: Encodes images to latents.
        examples: The training split.
        plan: Steps and timesteps of the stage.
        stage_cfg: Batch size or tokens, and number of micro-batches.
        seed: Seed of the run.
        to_batch: Collates examples.
    """

    def __init__(
        self, model: Model, objective: Objective, codec: Codec, examples: Examples, plan: StageSchedule,
        stage_cfg: Stage, seed: int, to_batch: Callable[..., Batch] = collate,
    ):  # fmt: skip
        self.model, self.objective, self.codec, self.examples = model, objective, codec, examples
        self.to_batch = to_batch
        self.plan, self.seed = plan, seed
        self.stage_cfg = stage_cfg

    def __call__(self, compute: Compute) -> None:
        """Run one step in the given precision. Gradients are discarded, and the state of torch's generator is restored."""
        micro_batch = self._micro_batch
        with torch.random.fork_rng(devices=[]):
            with compute:
                losses = self.objective(self.model, *micro_batch)
            with kernels(compute.device, compute.precision):
                losses["loss"].backward()
        self.model.zero_grad(set_to_none=True)

    @cached_property
    def _micro_batch(self) -> MicroBatch:
        """The micro-batch, prepared on first use."""
        rows = self.examples.first(DISTINCT)
        rows = [rows[i] for i in same_size(rows, len(rows))[0]]
        (batch_size,) = batch_sizes(self.examples, [np.zeros(1, int)], self.stage_cfg, self.model.token_side)
        items = max(1, -(-batch_size // (self.stage_cfg.accumulate * collectives.count())))
        rows = (rows * items)[:items]
        batch = self.to_batch(rows, spans=self.objective.needs_spans(self.model)).smaller(self.plan.scale)
        x_0 = self.codec.encode(batch.image) if batch.latent is None else batch.latent
        rng, shape = generator(self.seed, "trial"), self.codec.latent_shape(batch)
        starts = self.objective.start_sampler is not None
        noise = sample_step_noise(self.objective.process, shape, self.plan.last, {}, 0.0, rng, starts)
        return MicroBatch(batch, x_0, noise, False, x_0)
