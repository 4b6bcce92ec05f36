"""The training step as the paper writes it: noise, x_t, prediction, target, weighted loss, backward, update, EMA.

Memory is handled outside of it: micro_batches.py splits the batch, and oom_retry.py repeats a step in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ragaf_exp.compute.device import Compute
from ragaf_exp.config.schema import Loss
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.base import Process
from ragaf_exp.diffusion.denoiser import Denoiser
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.model import Model
from ragaf_exp.tasks.base import Denoised, Task, denoising_loss
from ragaf_exp.training.ema import Ema
from ragaf_exp.training.losses.dream import rectified_noise
from ragaf_exp.training.losses.start_sample import StartSampler
from ragaf_exp.training.losses.weighted import LossWeights, region_losses
from ragaf_exp.training.micro_batches import WHOLE, MicroBatch, MicroBatchWeight
from ragaf_exp.training.step_noise import StepNoise, x_start
from ragaf_exp.training.update import Update


class Objective(nn.Module):
    """The weighted sum of the losses of a stage. A loss with weight 0 is not computed.

    Args:
        process: The diffusion process.
        loss: Config group `loss`, the weights of the losses.
        earlier: The trained model of the previous stage, if this stage takes its latents as input.
        start_steps: Sampling steps of `earlier`.
        task: Provides the losses of the denoiser; None for the denoising loss alone.
        codec: Decodes predictions for losses on images.
    """

    def __init__(
        self, process: Process, loss: Loss | None = None, earlier: Denoiser | None = None, start_steps: int = 1,
        task: Task | None = None, codec: Codec | None = None,
    ):  # fmt: skip
        super().__init__()
        self.start_sampler = None if earlier is None else StartSampler(process, earlier, start_steps)
        self.process = process
        self.weights = LossWeights(loss or Loss(), task.loss_weights if task else None)
        self.task_losses, self.loss_network = (task.losses, task.loss_network) if task else (self._denoising, None)
        self.decode = codec.decode if codec else nn.Identity()
        self.dream = task.dream if task else 0.0

    def needs_spans(self, model: Model) -> bool:
        """Whether training batches need the regions' spans of the caption: for a loss, or as an input of the model."""
        return model.needs_spans or self.weights["spans"] > 0

    def forward(
        self, model: nn.Module, batch: Batch, x_0: Tensor, noise: StepNoise, regions_only: bool = False,
        start: Tensor | None = None, share: MicroBatchWeight = WHOLE, progress: float = 0.0,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Compute the losses.

        Args:
            model: The trained model.
            batch: The conditions.
            x_0: Clean latents, (B,C,h,w).
            noise: The noise, timesteps and dropped conditions.
            regions_only: Run the region path alone, without the denoiser.
            start: Latents that noise is added to, (B,C,h,w), if they depend on items outside this batch; else x_start.
            share: Share of this micro-batch in the batch of the step.
            progress: Share of the stage's steps done so far, in [0,1).

        Returns:
            The losses by name, and their weighted sum as `loss`.
        """
        timesteps, x_t, added = noise.timesteps, None, noise.noise
        if not regions_only:
            latents = x_start(x_0, batch, noise) if start is None else start  # x_0, except for recoloured items
            x_t = self.process.add_noise(latents, added, timesteps)
        earlier = None if self.start_sampler is None or regions_only else self.start_sampler(batch, noise.start_noise())
        if self.dream and x_t is not None:
            with torch.no_grad():
                first = model(batch, x_t, timesteps, noise.keep, earlier)[0].value
            added = rectified_noise(self.process, latents, added, x_t, timesteps, first.float(), self.dream)
            x_t = self.process.add_noise(latents, added, timesteps)
        prediction, conditioning = model(batch, x_t, timesteps, noise.keep, earlier)
        losses = {}
        if prediction.value is not None and x_t is not None:
            target = self.process.target(x_0, added, timesteps)
            denoised = Denoised(batch, x_0, x_t, timesteps, prediction.value, target, self.process, self.decode)
            losses = {name: value * share.items for name, value in self.task_losses(denoised).items()}
        losses |= region_losses(prediction, conditioning, x_0, self.weights, share)
        return {"loss": self.weights.total(losses, progress), **losses}

    def denoising(self, prediction: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
        """Mean squared error of the prediction, weighted by timestep.

        Args:
            prediction: Output of the denoiser, (B,C,h,w).
            target: Target of the process, (B,C,h,w).
            timesteps: (B,).

        Returns:
            A scalar.
        """
        return denoising_loss(self.process, prediction, target, timesteps)

    def _denoising(self, step: Denoised) -> dict[str, Tensor]:
        return {"diffusion": self.denoising(step.prediction, step.target, step.timesteps)}


@dataclass(frozen=True)
class TrainingStep:
    """One optimizer step of a stage.

    Args:
        losses: Maps the fields of a MicroBatch to the losses of the trained model.
        update: The weight update.
        ema: The average of the weights.
        compute: Device and precision of the forward pass.
    """

    losses: Callable[..., dict[str, Tensor]]
    update: Update
    ema: Ema
    compute: Compute

    def descend(self, micro_batches: Iterable[MicroBatch]) -> dict[str, Tensor]:
        """Accumulate the gradients of a batch and update the weights. Gradients of a failed attempt are discarded."""
        self.update.discard()
        total: dict[str, Tensor] = {}
        for micro_batch in micro_batches:
            losses = self.gradients(micro_batch)
            total = {name: value + total.get(name, 0) for name, value in losses.items()}
        self.update.apply()
        return total

    def gradients(self, micro_batch: MicroBatch) -> dict[str, Tensor]:
        """Run the forward and backward pass of a micro-batch and return its detached losses."""
        with self.compute:
            losses = self.losses(*micro_batch)
        self.update.backward(losses["loss"])
        return {name: value.detach() for name, value in losses.items()}

    def average(self, step: int) -> None:
        """Move the EMA towards the updated weights."""
        self.ema.update(step)
