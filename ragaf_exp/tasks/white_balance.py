"""White balance: an image under a wrong light becomes the same image under a neutral one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.data.correction import apply_powers, fit_powers, light_of, to_tensor, with_highlights
from ragaf_exp.data.light import NAMES, Light
from ragaf_exp.models.inputs import Encode, Keep, Source, present
from ragaf_exp.tasks.base import REGIONS, Condition, Panel, Task

GIVEN, LIGHT = "given", "light"
FITTED = 256  # side in pixels, roughly, at which an edited photo's light is fitted
LIGHT_CHANNELS = 5  # the four parameters, and whether they are known


class WhiteBalance(Task):
    """Predicts the image under a neutral light.

    Args:
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        mapping: Apply to the given image the gain and power of each channel, in linear light, that come closest to the
            network's output: details are the given ones, at any resolution. Clipped channels, which say nothing of the
            light, are the network's where it is brighter. Without it, the output is the result.
        light: The parameters of the wrong light are a condition, too, where the data has them.
        light_dropout: Probability that they are dropped in training, so that the network also works without them.
    """

    columns = {"image": "image", "prompt": "text", "light": "numbers"}
    optional = ("prompt", "light")
    metrics = ("eval.edits:colour_metrics",)
    uses_codec = has_source = True
    hint_channels = 4
    rivals = {
        "unchanged": "eval.rivals.examples:unchanged",
        "gray_world": "eval.rivals.examples:gray_world",
        "white_patch": "eval.rivals.examples:white_patch",
        "shades_of_gray": "eval.rivals.examples:shades_of_gray",
    }

    def __init__(
        self, caption_dropout: limits.Share = 0.5, sketch_dropout: limits.Share = 0.5, mapping: bool = True,
        light: bool = False, light_dropout: limits.Share = 0.5,
    ):  # fmt: skip
        self.caption_dropout, self.sketch_dropout, self.mapping = caption_dropout, sketch_dropout, mapping
        self.light, self.light_dropout = light, light_dropout

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Caption, sketch and light, each often dropped, and the given image, which never is."""
        light = (Condition(LIGHT, self.light_dropout, maps={LIGHT: LIGHT_CHANNELS}),) if self.light else ()
        return (
            Condition("text", self.caption_dropout, fields=("captions",)),
            Condition("sketch", self.sketch_dropout, fields=("sketch", *REGIONS)),
            Condition("image", 0.0, maps={GIVEN: 3}),
            *light,
        )

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The given image."""
        return (Panel(GIVEN, _given),)

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The given image, and its light as constant maps."""
        if GIVEN not in example.item.conditions:
            raise UserError(f"data: {example.item.key} has no image under a wrong light; take data=casts, or "
                            "data=edits with a table of input_image and target_image")  # fmt: skip
        given = example.item.conditions[GIVEN]
        if not self.light:
            return {GIVEN: given}
        return {GIVEN: given, LIGHT: light_map(example.item.conditions.get(LIGHT), *given.shape[:2])}

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The image of a request, and its light where that is given.

        Args:
            item: Prompt and sketch.
            inputs: `image` (H,W,3) uint8; optional `light`, kelvin, tint, exposure and gamma.

        Raises:
            UserError: The light is not valid, or the run was trained without lights.
        """
        conditions = {GIVEN: inputs["image"]}
        if LIGHT in inputs:
            if not self.light:
                raise UserError("light=: this run was trained without it; leave it out, or train with task.light=true")
            conditions[LIGHT] = Light.read(inputs[LIGHT].tolist(), LIGHT).parameters()
        return replace(item, image=inputs["image"], conditions=conditions)

    def extra_channels(self, latent_channels: int) -> int:
        """The given image's latent, and the light."""
        return latent_channels + LIGHT_CHANNELS * self.light

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor:
        """The given image's latent, and the light's parameters at every latent pixel.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w).

        Returns:
            (B,C,h,w) or (B,C+5,h,w).
        """
        latent = encode(batch.conditions[GIVEN])
        shown = latent * present(keep, "image", latent)
        if not self.light:
            return shown
        light = F.adaptive_avg_pool2d(batch.conditions[LIGHT].to(latent.dtype), (latent.shape[2], latent.shape[3]))
        return torch.cat([shown, light * present(keep, LIGHT, latent)], dim=1)

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
        corrected = apply_powers(given, *fit_powers(given, image.float()))
        return with_highlights(corrected, given, image.float()).to(image.dtype)

    def full_resolution(self, picture: np.ndarray, given: np.ndarray, result: np.ndarray) -> np.ndarray:
        """The picture with the correction of the small result, so that no detail is lost.

        Args:
            picture: (H,W,3) uint8 of any size.
            given: (size,size,3) uint8, as the network saw it.
            result: (size,size,3) uint8.

        Returns:
            (H,W,3) uint8.
        """
        enlarged = super().full_resolution(picture, given, result)
        if not self.mapping:
            return enlarged
        whole = to_tensor(picture)
        mapped = apply_powers(whole, *fit_powers(to_tensor(given), to_tensor(result)))
        corrected = with_highlights(mapped, whole, to_tensor(enlarged))
        return ((corrected[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()

    def facts(self, given: np.ndarray, result: np.ndarray) -> dict[str, Any]:
        """The wrong light by the result: kelvin, tint, exposure and gamma."""
        step = max(1, min(given.shape[:2]) // FITTED)  # some pixels of a large photo are enough
        light = light_of(given[::step, ::step], result[::step, ::step])
        return {LIGHT: dict(zip(NAMES, astuple(light), strict=True))}


def light_map(parameters: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """Return the light as constant maps.

    Args:
        parameters: Of the light, as of Light.parameters, (4,); None = unknown.
        height: H.
        width: W.

    Returns:
        (H,W,5) float32: the parameters and a one, or zeros.
    """
    values = np.zeros(LIGHT_CHANNELS, np.float32) if parameters is None else np.append(parameters, 1).astype(np.float32)
    return np.broadcast_to(values, (height, width, LIGHT_CHANNELS))


def _given(example: Example) -> np.ndarray:
    return example.conditions[GIVEN]
