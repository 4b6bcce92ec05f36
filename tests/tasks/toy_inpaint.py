"""A small inpainting task in one file, as a user adds one: an image with a square hole, which the denoiser sees."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.types import Batch, Example
from ragaf_exp.models.inputs import Encode, Keep, present
from ragaf_exp.tasks.base import REGIONS, Condition, Denoised, Panel, Task, denoising_loss


class ToyInpaint(Task):
    """Fills a square hole. dropout: of the image around it."""

    columns = {"image": "image", "mask": "mask", "prompt": "text"}
    optional = ("prompt",)
    metrics = ("tests_toy_inpaint:hole_metrics",)
    loss_weights = {"hole": 1.0}
    uses_codec = True

    def __init__(self, dropout: limits.Share = 0.1, side: limits.Share = 0.5):
        self.share, self.side = dropout, side

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (
            Condition("text", 0.1, fields=("captions",)),
            Condition("sketch", 0.1, fields=("sketch", *REGIONS)),
            Condition("known", self.share, maps={"masked": 3, "mask": 1}),
        )

    @property
    def panels(self) -> tuple[Panel, ...]:
        return (Panel("masked", lambda example: example.conditions["masked"]),)

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        image, given = example.item.image, example.item.conditions
        if "mask" in given:  # a sampling request, whose mask is 1 in the hole
            mask = 1 - given["mask"]
            return {"masked": np.where(mask[..., None] > 0, given["image"], np.uint8(128)), "mask": mask}
        height, width = image.shape[:2]
        side = round(self.side * min(height, width))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        mask = np.ones((height, width), np.float32)  # 1 = known
        mask[top : top + side, left : left + side] = 0
        return {"masked": np.where(mask[..., None] > 0, image, np.uint8(128)), "mask": mask}

    def extra_channels(self, latent_channels: int) -> int:
        return latent_channels + 1

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor:
        latent = encode(batch.conditions["masked"])
        mask = F.adaptive_avg_pool2d(batch.conditions["mask"], latent.shape[2:])
        return torch.cat([latent, mask], dim=1) * present(keep, "known", latent)

    def losses(self, step: Denoised) -> dict[str, Tensor]:
        hole = 1 - F.adaptive_avg_pool2d(step.batch.conditions["mask"], step.x_0.shape[2:])
        within = denoising_loss(step.process, step.prediction, step.target, step.timesteps, hole)
        return super().losses(step) | {"hole": within}
