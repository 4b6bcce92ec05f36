"""The inputs that a task gives the networks: the image of the hint encoder, and channels next to x_t."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.models.codecs.base import Codec

Keep = Mapping[str, Tensor]  # name of a condition -> (B,) bool, False drops it for an item; all others are present
ALL: Keep = {}
Encode = Callable[[Tensor], Tensor]  # images (B,3,H,W) in [-1,1] -> latents (B,C,h,w)


class Inputs:
    """The default: the sketch is the hint, and the denoiser takes x_t alone. A task overrides what differs.

    hint_channels: channels of the hint's image. uses_codec: whether training encodes conditions, or decodes predictions.
    tokens: number of learned tokens that the denoiser attends to after the caption, one for each of several tasks.
    """

    hint_channels: int = 1
    uses_codec: bool = False
    tokens: int = 0

    def extra_channels(self, latent_channels: int) -> int:
        """Channels of `extra` that are concatenated to x_t; 0 where `to_denoiser` uses it. latent_channels: of a latent."""
        return 0

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """The image of the hint encoder, (B,hint_channels,H,W), and (B,) bool, False where an item has no hint at all."""
        return batch.sketch, keep.get("sketch")

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor | None:
        """Encoded conditions next to x_t, (B,E,h,w), the same at every timestep; a dropped condition is zero in them.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w), without gradients.
        """
        return None

    def to_denoiser(self, x_t: Tensor, t: Tensor, extra: Tensor | None) -> Tensor:
        """Lay out the denoiser's input, which may be wider or higher: a task can place other latents to the side of x_t.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            extra: The task's encoded conditions.
        """
        return x_t

    def from_denoiser(self, prediction: Tensor, x_t: Tensor) -> Tensor:
        """The part (B,C,h,w) of the denoiser's prediction that is of x_t (B,C,h,w)."""
        return prediction

    def finish(self, image: Tensor, batch: Batch) -> Tensor:
        """A sampled image (B,3,H,W) in [-1,1] as the user gets it: a task can restore pixels that must not change."""
        return image


class BoundInputs:
    """A task's inputs and the codec that encodes them. Copies of a model share it: it is not part of their weights.

    Args:
        inputs: The task.
        codec: Encodes images of conditions.
        side: Height and width of the latents.
    """

    def __init__(self, inputs: Inputs, codec: Codec, side: int):
        self.inputs, self.codec, self.side = inputs, codec, side

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundInputs:
        return self

    def extra(self, batch: Batch, keep: Keep) -> Tensor | None:
        """As Inputs.extra, with this codec."""
        return self.inputs.extra(batch, keep, self._encode)

    def _encode(self, image: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            return self.codec.encode(image)


def both(keep: Keep, present: Keep) -> Keep:
    """The conditions that are neither dropped nor absent."""
    there = {name: keep[name] & x if name in keep else x for name, x in present.items()}
    return {**keep, **there}


def present(keep: Keep, name: str, like: Tensor) -> Tensor:
    """A factor that is zero for the items whose condition is dropped.

    Args:
        keep: The conditions that are dropped.
        name: The condition.
        like: (B,C,h,w), whose type and device the factor has.

    Returns:
        (B,1,1,1), 1 where an item has the condition, else 0.
    """
    there = keep.get(name)
    return torch.ones_like(like[:, :1, :1, :1]) if there is None else there[:, None, None, None].to(like.dtype)
