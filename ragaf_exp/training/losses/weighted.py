"""Weights of the losses of a stage, and the losses of the region path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from operator import add

from torch import Tensor

from ragaf_exp.config.schema import Loss
from ragaf_exp.models.conditioning import Conditioning, RegionState
from ragaf_exp.models.model import Prediction
from ragaf_exp.models.regions.targets import target_sizes
from ragaf_exp.training.losses.region_targets import target_losses
from ragaf_exp.training.losses.region_text import contrastive, coverage, entropy, spans
from ragaf_exp.training.micro_batches import MicroBatchWeight


class LossWeights(dict[str, float]):
    """Weights of the losses by name: config group `loss` and the further losses of a task."""

    def __init__(self, loss: Loss, further: Mapping[str, float] | None = None):
        super().__init__({**asdict(loss), **(further or {})})

    def at(self, name: str, progress: float = 0.0) -> float:
        """Weight of a loss after the share `progress` of the stage's steps."""
        until = self["contrastive_until"]
        left = max(0.0, 1 - progress / until) if name == "contrastive" and until else 1.0
        return left * self[name]

    def total(self, losses: Mapping[str, Tensor], progress: float) -> Tensor:
        """The weighted sum of the losses."""
        return reduce(add, (self.at(name, progress) * value for name, value in losses.items()))


def region_losses(
    prediction: Prediction, c: Conditioning, x_0: Tensor, weights: LossWeights, share: MicroBatchWeight
) -> dict[str, Tensor]:
    """Compute the losses of the region path, scaled by the share of this micro-batch in the step.

    Args:
        prediction: Output of the model, with the predictions of the region tokens.
        c: Conditioning, with masks and attention of the regions.
        x_0: Clean latents, (B,C,h,w).
        weights: Losses with weight 0 are not computed.
        share: Share of this micro-batch in the batch of the step.

    Returns:
        The losses by name; empty for a model without regions.
    """
    if c.regions is None:
        return {}
    losses: dict[str, Tensor] = {}
    if prediction.region_latent is not None:
        targets = _region_targets(prediction.region_latent, c.regions, x_0, weights)
        losses |= {name: value * share.regions for name, value in targets.items()}
    return losses | _region_text(prediction, c, weights, share)


def _region_targets(predicted: Tensor, state: RegionState, x_0: Tensor, weights: LossWeights) -> dict[str, Tensor]:
    """Losses of the predictions (B,N,values of all targets) of the region tokens."""
    sizes = target_sizes(weights, x_0.shape[1])
    return target_losses(predicted, sizes, state.soft_masks[x_0.shape[2], x_0.shape[3]], state.region_mask, x_0)


def _region_text(
    prediction: Prediction, c: Conditioning, weights: LossWeights, share: MicroBatchWeight
) -> dict[str, Tensor]:
    """Losses on regions and text. Batches without spans skip `spans`; `contrastive` compares within a micro-batch."""
    losses = {}
    if weights["contrastive"] > 0:  # also when its weight has decayed to 0, so that all steps log the same losses
        assert prediction.contrastive_logits is not None, "a model with this loss has logits"
        losses["contrastive"] = contrastive(prediction.contrastive_logits, c) * share.items
    if weights["coverage"] > 0:
        losses["coverage"] = coverage(c) * share.items
    if weights["entropy"] > 0:
        losses["entropy"] = entropy(c) * share.regions
    if weights["spans"] > 0 and c.region_state.phrase_tokens is not None:
        losses["spans"] = spans(c) * share.regions
    return losses
