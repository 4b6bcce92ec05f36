"""The fusion weights as functions of the timestep, for the report."""

from __future__ import annotations

import torch

from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.model import Model

FUSION_POINTS = 21  # timesteps at which the fusion curve is evaluated


@torch.no_grad()
def fusion_curve(model: Model, regions: RegionState) -> dict[str, list[float]]:
    """Mean and standard deviation over regions of the fusion weights, at timesteps from 0 to the last."""
    curve: dict[str, list[float]] = {k: [] for k in ("timesteps", "sketch", "text", "sketch_std", "text_std")}
    for t in torch.linspace(0, model.timesteps - 1, FUSION_POINTS):
        times = torch.full((len(regions.region_mask),), float(t) / model.timesteps, device=regions.structure.device)
        _, weights = model.ragaf.fuse(regions, times)  # (B,N,2)
        sketch, text = weights[regions.region_mask].float().unbind(-1)
        curve["timesteps"].append(round(float(t)))
        for name, values in (("sketch", sketch), ("text", text)):
            curve[name].append(round(float(values.mean()), 5))
            curve[f"{name}_std"].append(round(float(values.std(unbiased=False)), 5))
    return curve
