"""White balance: an image under a wrong light becomes the same image under a neutral one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.models.inputs import Encode, Keep, Source, present
from ragaf_exp.tasks.base import REGIONS, Condition, Panel, Task

GIVEN = "given"
ITERATIONS = 5  # of the robust fit
SPREAD = 0.03  # residual in log light at which a pixel's weight is one half
FLOOR = 0.02  # linear light below which noise dominates


class WhiteBalance(Task):
    """Predicts the image under a neutral light.

    Args:
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        mapping: Apply to the given image the gain and power of each channel, in linear light, that come closest to the
            network's output: details are the given ones, at any resolution. Without it, the output is the result.
    """

    columns = {"image": "image", "prompt": "text"}
    optional = ("prompt",)
    metrics = ("eval.edits:colour_metrics",)
    uses_codec = has_source = True
    hint_channels = 4
    rivals = {
        "unchanged": "eval.rivals.examples:unchanged",
        "gray_world": "eval.rivals.examples:gray_world",
        "white_patch": "eval.rivals.examples:white_patch",
        "shades_of_gray": "eval.rivals.examples:shades_of_gray",
    }

    def __init__(self, caption_dropout: limits.Share = 0.5, sketch_dropout: limits.Share = 0.5, mapping: bool = True):
        self.caption_dropout, self.sketch_dropout, self.mapping = caption_dropout, sketch_dropout, mapping

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Caption and sketch, each often dropped, and the given image, which never is."""
        return (
            Condition("text", self.caption_dropout, fields=("captions",)),
            Condition("sketch", self.sketch_dropout, fields=("sketch", *REGIONS)),
            Condition("image", 0.0, maps={GIVEN: 3}),
        )

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The given image."""
        return (Panel(GIVEN, _given),)

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The given image."""
        if GIVEN not in example.item.conditions:
            raise UserError(f"data: {example.item.key} has no image under a wrong light; take data=casts, or "
                            "data=edits with a table of input_image and target_image")  # fmt: skip
        return {GIVEN: example.item.conditions[GIVEN]}

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The image of a request. inputs: `image` (H,W,3) uint8."""
        return replace(item, image=inputs["image"], conditions={GIVEN: inputs["image"]})

    def extra_channels(self, latent_channels: int) -> int:
        """The given image's latent."""
        return latent_channels

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor:
        """The given image's latent.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w).

        Returns:
            (B,C,h,w).
        """
        latent = encode(batch.conditions[GIVEN])
        return latent * present(keep, "image", latent)

    def source(self, batch: Batch, keep: Keep) -> Source:
        """The given image, all of which changes."""
        given = batch.conditions[GIVEN]
        return Source(given * present(keep, "image", given), torch.ones_like(given[:, :1]))

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """Sketch and given image, (B,4,H,W)."""
        sketch = batch.sketch * present(keep, "sketch", batch.sketch)
        return torch.cat([sketch, batch.conditions[GIVEN] * present(keep, "image", sketch)], dim=1), None

    def finish(self, image: Tensor, batch: Batch) -> Tensor:
        """The given image with the correction that the sampled one (B,3,H,W) amounts to."""
        if not self.mapping:
            return image
        given = batch.conditions[GIVEN].float()
        return apply_powers(given, *fit_powers(given, image.float())).to(image.dtype)

    def full_resolution(self, picture: np.ndarray, given: np.ndarray, result: np.ndarray) -> np.ndarray:
        """The picture with the correction of the small result, so that no detail is lost.

        Args:
            picture: (H,W,3) uint8 of any size.
            given: (size,size,3) uint8, as the network saw it.
            result: (size,size,3) uint8.

        Returns:
            (H,W,3) uint8.
        """
        if not self.mapping:
            return super().full_resolution(picture, given, result)
        corrected = apply_powers(_tensor(picture), *fit_powers(_tensor(given), _tensor(result)))
        return ((corrected[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()


def _tensor(picture: np.ndarray) -> Tensor:
    """(H,W,3) uint8 -> (1,3,H,W) in [-1,1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def fit_powers(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Fit wanted = gain * given^power to each channel in linear light, by reweighted least squares on logarithms.

    Args:
        given: (B,3,H,W) in [-1,1].
        wanted: (B,3,H,W) in [-1,1].

    Returns:
        Log gains and powers, each (B,3,1).
    """
    x, y = (_linear(image).flatten(2) for image in (given, wanted))  # (B,3,P)
    # clipped and dark pixels say nothing of the light
    valid = ((x > FLOOR) & (x < 0.97) & (y > FLOOR) & (y < 0.97)).float() + 1e-6
    x, y = x.clamp(min=1e-3).log(), y.clamp(min=1e-3).log()
    weight = valid
    for _ in range(ITERATIONS):
        total = weight.sum(2, keepdim=True)
        mean_x, mean_y = (weight * x).sum(2, keepdim=True) / total, (weight * y).sum(2, keepdim=True) / total
        spread = (weight * (x - mean_x) ** 2).sum(2, keepdim=True) / total
        slope = (weight * (x - mean_x) * (y - mean_y)).sum(2, keepdim=True) / total
        power = ((slope + 0.01) / (spread + 0.01)).clamp(0.5, 2.0)  # a flat channel keeps its power of 1
        gain = mean_y - power * mean_x
        weight = valid / (1 + ((y - gain - power * x) / SPREAD) ** 2)
    return gain, power


def apply_powers(given: Tensor, gain: Tensor, power: Tensor) -> Tensor:
    """Apply log gains and powers (B,3,1) to an image.

    Args:
        given: (B,3,H,W) in [-1,1].
        gain: Log gains.
        power: Powers.

    Returns:
        (B,3,H,W) in [-1,1].
    """
    x = _linear(given).clamp(min=1e-6).log()
    linear = (gain[..., None] + power[..., None] * x).exp().clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 2 - 1


def _linear(image: Tensor) -> Tensor:
    """SRGB (B,3,H,W) in [-1,1] to linear light in [0,1]."""
    x = (image.clamp(-1, 1) + 1) / 2
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def _given(example: Example) -> np.ndarray:
    return example.conditions[GIVEN]
