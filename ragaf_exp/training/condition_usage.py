"""Condition usage: the loss with the right condition beside the loss with another item's.

A condition that is used makes its shuffled loss rise above the right one long before samples show it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.core.randomness import generator
from ragaf_exp.core.types import Batch
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.model import Model
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import StepNoise, sample_step_noise

REGIONS = ("labels", "nodes", "node_mask", "edges", "edge_mask")
SHUFFLES = {"text_shuffled": ("captions",), "sketch_shuffled": ("sketch", *REGIONS), "regions_shuffled": REGIONS}


def shuffled(batch: Batch, fields: tuple[str, ...]) -> Batch:
    """The batch with some fields taken from the item before."""
    return replace(batch, **{name: _roll(getattr(batch, name)) for name in fields})


def _roll(values):
    return values.roll(1, 0) if isinstance(values, torch.Tensor) else [values[-1], *values[:-1]]


FUSION_AT = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of the timesteps that a stage is trained on


@torch.no_grad()
def fusion_weights(model: Model, batch: Batch, last: int) -> dict[str, float]:
    """Mean over regions of the fusion's sketch weight at some timesteps, as `fusion_sketch_<timestep>`."""
    regions, ragaf = model.condition(batch).region_state, model.ragaf
    assert ragaf is not None
    real, found = regions.region_mask, {}
    for share in FUSION_AT:
        t = round(share * (last - 1))
        times = torch.full((len(batch),), t / model.timesteps, device=real.device)
        sketch = ragaf.fuse(regions, times)[1][..., 0].float()  # (B,N)
        found[f"fusion_sketch_{t:03d}"] = float((sketch * real).sum() / real.sum().clamp(min=1))
    return found


@torch.no_grad()
def condition_usage(
    model: nn.Module, objective: Objective, codec: Codec, batches: list[Batch], last: int, seed: int,
    chunks: Chunks | None = None,
) -> dict[str, float]:  # fmt: skip
    """Mean denoising loss with the right conditions, and with each shuffled; the same noise for all.

    Where memory runs out, batches are taken in smaller chunks. The regions' own figure is only there for a model that
    has a region path.
    """
    names = [n for n in SHUFFLES if n != "regions_shuffled" or getattr(model, "ragaf", None) is not None]
    totals = dict.fromkeys(["right", *names], 0.0)
    for i, batch in enumerate(batches):
        rng = generator(seed, "usage", i)
        shape = codec.latent_shape(batch)
        noise = sample_step_noise(objective.process, shape, last, (0.0, 0.0), 0.0, rng, objective.coarse is not None)
        for name in totals:
            variant = batch if name == "right" else shuffled(batch, SHUFFLES[name])

            def loss(rows: slice, variant: Batch = variant, noise: StepNoise = noise) -> float:
                some = variant.rows(rows)
                x_0 = codec.encode(some.image)
                value = objective(model, some, x_0, noise.rows(rows).to(x_0.device))["diffusion"]
                return float(value) * len(some) / len(variant)

            totals[name] += sum((chunks or Chunks()).over(len(batch), loss, "validation"))
    return {name: total / len(batches) for name, total in totals.items()}
