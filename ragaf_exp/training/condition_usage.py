"""Condition usage: compares the loss with each item's own condition to the loss with the condition of another item.

If the model uses a condition, the loss rises when that condition is shuffled, long before the samples show an effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.core.randomness import generator
from ragaf_exp.core.types import Batch
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.model import Model
from ragaf_exp.tasks.base import REGIONS, Condition
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import StepNoise, sample_step_noise

SHUFFLED = "_shuffled"


def shuffled(batch: Batch, condition: Condition) -> Batch:
    """Replace one condition of each item by that of the previous item."""
    further = {name: _roll(x) if name in condition.maps else x for name, x in batch.conditions.items()}
    return replace(batch, conditions=further, **{name: _roll(getattr(batch, name)) for name in condition.fields})


def _roll(values):
    return values.roll(1, 0) if isinstance(values, torch.Tensor) else [values[-1], *values[:-1]]


FUSION_AT = (0.0, 0.25, 0.5, 0.75, 1.0)  # as shares of the range of trained timesteps


@torch.no_grad()
def fusion_weights(model: Model, batch: Batch, last: int) -> dict[str, float]:
    """Average the fusion's sketch weight over regions at several timesteps.

    Args:
        model: A model with a region path.
        batch: The conditions.
        last: Exclusive upper end of the trained timesteps.

    Returns:
        `fusion_sketch_<timestep>` -> weight in [0,1].
    """
    regions, ragaf = model.condition(batch).region_state, model.ragaf
    assert ragaf is not None
    real, weights = regions.region_mask, {}
    for share in FUSION_AT:
        t = round(share * (last - 1))
        times = torch.full((len(batch),), t / model.timesteps, device=real.device)
        sketch = ragaf.fuse(regions, times)[1][..., 0].float()  # (B,N)
        weights[f"fusion_sketch_{t:03d}"] = float((sketch * real).sum() / real.sum().clamp(min=1))
    return weights


@torch.no_grad()
def condition_usage(
    model: nn.Module, objective: Objective, codec: Codec, batches: list[Batch], last: int, seed: int,
    conditions: Sequence[Condition], chunks: Chunks | None = None,
) -> dict[str, float]:  # fmt: skip
    """Mean denoising loss with the correct conditions, and with each condition shuffled, all with the same noise.

    Args:
        model: The model of the stage.
        objective: The stage's training objective.
        codec: Encodes images to latents.
        batches: Validation batches.
        last: Exclusive upper end of the trained timesteps.
        seed: Seed of the noise.
        conditions: The conditions of the task. For a model with a region path, the regions are shuffled as well.
        chunks: Number of items per pass, lowered when memory runs out.

    Returns:
        `right` and `<condition>_shuffled` -> loss.
    """
    known = {f"{condition.name}{SHUFFLED}": condition for condition in conditions}
    if getattr(model, "ragaf", None) is not None:
        known[f"regions{SHUFFLED}"] = Condition("regions", 0.0, fields=REGIONS)
    none_dropped = dict.fromkeys((condition.name for condition in conditions), 0.0)
    totals = dict.fromkeys(["right", *known], 0.0)
    for i, batch in enumerate(batches):
        rng = generator(seed, "usage", i)
        shape = codec.latent_shape(batch)
        noise = sample_step_noise(
            objective.process, shape, last, none_dropped, 0.0, rng, objective.start_sampler is not None
        )
        for name in totals:
            variant = shuffled(batch, known[name]) if name in known else batch

            def loss(rows: slice, variant: Batch = variant, noise: StepNoise = noise) -> float:
                some = variant.rows(rows)
                x_0 = codec.encode(some.image)
                value = objective(model, some, x_0, noise.rows(rows).to(x_0.device))["diffusion"]
                return float(value) * len(some) / len(variant)

            totals[name] += sum((chunks or Chunks()).over(len(batch), loss, "validation"))
    return {name: total / len(batches) for name, total in totals.items()}
