"""Tasks that paint a hole of an image: the inputs, losses and the final paste that they have in common.

Their conditions are `given`, an image (H,W,3), and `hole`, a map (H,W), 1 = to be painted. Both enter next to x_t, as the
latent of the image and the hole at the latent's resolution (Stable Diffusion's inpainting layout), and, unless switched
off, at full resolution through the hint encoder, together with the sketch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.models.inputs import Encode, Keep, Source, present
from ragaf_exp.tasks.base import REGIONS, Condition, Denoised, Panel, Task, denoising_loss

GIVEN, HOLE = "given", "hole"
GREY = 128  # of hidden pixels
OUTLINE = (255, 0, 200)


class HoleTask(Task):
    """Base of tasks with a hole.

    Args:
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        image_hint: Give the image to the hint encoder too, at full resolution.
        outside: Weight of latent pixels outside the hole in the loss; those within it have 1.
        image_dropout: Probability that a training item's image is dropped, with its hole, for `sampler.image_guidance`.
    """

    columns = {"image": "image", "mask": "image", "prompt": "text", "sketch": "drawing"}
    optional = ("prompt", "sketch")
    uses_codec = has_source = True
    rivals = {
        "telea": "eval.rivals.examples:telea",
        "navier_stokes": "eval.rivals.examples:navier_stokes",
        "biharmonic": "eval.rivals.examples:biharmonic",
    }

    def __init__(self, caption_dropout: float, sketch_dropout: float, image_hint: bool, outside: float,
                 image_dropout: float = 0.0):  # fmt: skip
        self.caption_dropout, self.sketch_dropout, self.outside = caption_dropout, sketch_dropout, outside
        self.image_dropout, self.hint_channels = image_dropout, 5 if image_hint else 1

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Caption, sketch and the image with its hole, each dropped in training; the image by default never is."""
        return (
            Condition("text", self.caption_dropout, fields=("captions",)),
            Condition("sketch", self.sketch_dropout, fields=("sketch", *REGIONS)),
            Condition("image", self.image_dropout, maps={GIVEN: 3, HOLE: 1}),
        )

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The given image with the hole's outline, and the sketch."""
        return Panel(GIVEN, outlined), Panel("sketch", _sketch)

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The image of a request and its hole.

        Args:
            item: Prompt and sketch.
            inputs: `image` (H,W,3) uint8, `mask` (H,W) float, 1 = hole, at the size that is sampled.
        """
        given, hole = inputs["image"], inputs["mask"]
        return replace(item, image=given, conditions={GIVEN: given, HOLE: hole})

    def extra_channels(self, latent_channels: int) -> int:
        """The hole, and the latent of the given image."""
        return 1 + latent_channels

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor:
        """The hole and the given image's latent, in the order of Stable Diffusion's inpainting UNet.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w).

        Returns:
            (B,1+C,h,w).
        """
        latent = encode(batch.conditions[GIVEN])
        return torch.cat([touched(batch.conditions[HOLE], latent), latent], dim=1) * present(keep, "image", latent)

    def source(self, batch: Batch, keep: Keep) -> Source:
        """The given image, and where it may change."""
        given = batch.conditions[GIVEN]
        return Source(given * present(keep, "image", given), self.painted(batch))

    def valid(self, x_t: Tensor, extra: Tensor | None) -> Tensor | None:
        """All cells but those that the hole touches.

        Args:
            x_t: Noised latents, (B,C,h,w).
            extra: As of `extra`, possibly behind channels of other tasks.

        Returns:
            (B,1,h',w') bool.
        """
        return None if extra is None else extra[:, -1 - x_t.shape[1], None] == 0

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """Sketch, hole and given image, (B,5,H,W), or the sketch alone."""
        if self.hint_channels == 1:
            return super().hint_image(batch, keep)
        sketch = batch.sketch * present(keep, "sketch", batch.sketch)
        shown = present(keep, "image", sketch)
        return torch.cat([sketch, batch.conditions[HOLE] * shown, batch.conditions[GIVEN] * shown], dim=1), None

    def losses(self, step: Denoised) -> dict[str, Tensor]:
        """The denoising loss, normalised by the hole's area (He et al. 2022's masked loss, with a rest outside it)."""
        weight = self.outside + (1 - self.outside) * touched(self.painted(step.batch), step.x_0)
        loss = denoising_loss(step.process, step.prediction, step.target, step.timesteps, weight)
        return {"diffusion": loss}

    def painted(self, batch: Batch) -> Tensor:
        """(B,1,H,W): 1 where the result may differ from the given image."""
        return batch.conditions[HOLE]

    def finish(self, image: Tensor, batch: Batch) -> Tensor:
        """The given image outside the painted area, to the bit."""
        return torch.where(self.painted(batch) > 0, image, batch.conditions[GIVEN].to(image.dtype))


def touched(hole: Tensor, latent: Tensor) -> Tensor:
    """(B,1,h,w): 1 where any pixel of a latent pixel (B,C,h,w) lies in the hole (B,1,H,W)."""
    return F.adaptive_max_pool2d(hole, latent.shape[2:]).to(latent.dtype)


def hidden(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """An image (H,W,3) uint8 with grey in place of the hole's (H,W) pixels."""
    return np.where(hole[..., None] > 0, np.uint8(GREY), image)


def outlined(example: Example) -> np.ndarray:
    """The given image of an example with the outline of its hole."""
    picture, hole = example.conditions[GIVEN].copy(), example.conditions[HOLE] > 0
    inner = hole & np.roll(hole, 1, 0) & np.roll(hole, -1, 0) & np.roll(hole, 1, 1) & np.roll(hole, -1, 1)
    picture[hole & ~inner] = OUTLINE
    return picture


def _sketch(example: Example) -> np.ndarray:
    return example.sketch


def given_hole(conditions: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The hole (H,W) float that a data source gives, None where it gives none."""
    return conditions.get(HOLE)
