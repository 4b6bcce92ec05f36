"""Periodic validation during training: a grid of samples with scores, and condition usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omegaconf import DictConfig
from torch import nn

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute
from ragaf_exp.core.safe_files import make_folder
from ragaf_exp.data.buckets import same_size
from ragaf_exp.data.loader import Examples, collate
from ragaf_exp.experiments.later import later_modules
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.inference.mixed_sizes import sample_images
from ragaf_exp.models.model import Model
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.condition_usage import condition_usage, fusion_weights
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.setup import plan


@dataclass(frozen=True)
class Validation:
    """The trainer's validation hook.

    Args:
        cfg: The config of the run.
        parts: Its components.
        examples: The validation split.
        folder: The run folder, or that of a shared stage.
    """

    cfg: DictConfig
    parts: Parts
    examples: Examples
    folder: RunFolder

    def __call__(
        self, stage: str, ema: nn.Module, earlier: Mapping[str, Model], objective: Objective, compute: Compute, step: int
    ) -> dict[str, float]:
        """Validate a stage.

        Args:
            stage: Name of the stage.
            ema: The EMA model of this stage.
            earlier: The models of the stages before it, by name.
            objective: The stage's training objective, whose denoising loss is also computed with shuffled conditions.
            compute: Device and precision of the stage's training.
            step: Number of optimizer steps so far, for the grid's file name.

        Returns:
            Metrics to log.
        """
        later, shown = later_modules(), self.cfg.eval.grid
        rows = self.examples.first(max(shown, self.cfg.eval.validation_drawn))
        pipeline = make_pipeline(self.cfg, self.parts, {**earlier, stage: ema}, compute)
        sampled = sample_images(pipeline, rows)
        grid = later.panels.validation_grid(rows[:shown], sampled.first(shown), self.parts.task.panels)
        later.panels.save_png(make_folder(self.folder.samples) / f"{stage}-{step:06d}.png", grid, own=True)
        scores = {}
        if self.cfg.eval.validation_metrics:
            extractor, metrics = self.parts.prepare.sketch, self.parts.task.metrics
            scores = later.validation.validation_scores(rows, sampled, extractor, metrics)
        return self._usage(stage, ema, objective, compute) | scores

    def _usage(self, stage: str, ema: nn.Module, objective: Objective, compute: Compute) -> dict[str, float]:
        """Denoising loss with the correct and with shuffled conditions; with regions also the fusion weights."""
        rows, size = self.examples.first(self.cfg.eval.validation_items), self.cfg.eval.batch
        schedule = plan(self.cfg, stage, self.parts)
        batches = [collate([rows[i] for i in some], ema.needs_spans).to(compute.device) for some in same_size(rows, size)]
        batches = [batch.smaller(schedule.scale) for batch in batches]
        args = (batches, schedule.last, self.cfg.seed, self.parts.task.conditions, self.parts.chunks)
        losses = condition_usage(ema, objective, self.parts.codec, *args)
        return losses | ({} if ema.ragaf is None else fusion_weights(ema, batches[0], schedule.last))
