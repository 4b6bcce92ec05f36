"""The inputs that a task provides to the networks: the image of the hint encoder, and channels next to x_t."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ragaf_exp.core.types import Batch
from ragaf_exp.models.codecs.base import Codec

Keep = Mapping[str, Tensor]  # name of a condition -> (B,) bool, False drops it for an item; all others are present
ALL: Keep = {}
Encode = Callable[[Tensor], Tensor]  # images (B,3,H,W) in [-1,1] -> latents (B,C,h,w)


@dataclass(frozen=True)
class Source:
    """The image that a task edits, for backbones and text encoders that were pretrained to edit images."""

    image: Tensor  # (B,3,H,W) in [-1,1]
    hole: Tensor  # (B,1,H,W), above 0 = pixels that may change


class Inputs:
    """The default inputs: the sketch is the hint, and the denoiser takes x_t alone. Tasks override what differs.

    Attributes:
        hint_channels: Channels of the hint image.
        uses_codec: Whether training encodes conditions or decodes predictions.
        tokens: Number of learned task tokens, one per task, of which one is appended to the caption; 0 = none.
        spread: Width of the denoiser's input, in widths of x_t.
        has_source: Whether `source` returns an image.
    """

    hint_channels: int = 1
    uses_codec: bool = False
    tokens: int = 0
    spread: int = 1
    has_source: bool = False

    def extra_channels(self, latent_channels: int) -> int:
        """Return the number of channels of `extra` that are concatenated to x_t; 0 if `to_denoiser` uses `extra`."""
        return 0

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """Return the hint image (B,hint_channels,H,W), and (B,) bool, False for items without a hint; None = all True."""
        return batch.sketch, keep.get("sketch")

    def extra(self, batch: Batch, keep: Keep, encode: Encode) -> Tensor | None:
        """Encode conditions as channels next to x_t, the same at every timestep. Dropped conditions are zero.

        Args:
            batch: The batch and its conditions.
            keep: The conditions that are dropped.
            encode: Function from images (B,3,H,W) in [-1,1] to latents (B,C,h,w), without gradients.

        Returns:
            (B,E,h,w), or None for a task without such channels.
        """
        return None

    def source(self, batch: Batch, keep: Keep) -> Source | None:
        """Return the image that the task edits, laid out like the denoiser's input; None for a task without one."""
        return None

    def to_denoiser(self, x_t: Tensor, t: Tensor, extra: Tensor | None) -> Tensor:
        """Lay out the denoiser's input. It may be larger than x_t: a task can place other latents at its side.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            extra: The task's encoded conditions, (B,E,h,w).

        Returns:
            (B,C,h',w').
        """
        return x_t

    def valid(self, x_t: Tensor, extra: Tensor | None) -> Tensor | None:
        """Mark the cells of the denoiser's input whose content is known, for backbones that attend to those alone.

        Args:
            x_t: Noised latents, (B,C,h,w).
            extra: The task's encoded conditions, (B,E,h',w').

        Returns:
            (B,1,h',w') bool; None if all are.
        """
        return None

    def region_labels(self, batch: Batch) -> Tensor:
        """Lay out the labels of regions, (B,H,W) and -1 = none, as the denoiser's input."""
        return batch.labels

    def from_denoiser(self, prediction: Tensor, x_t: Tensor) -> Tensor:
        """Crop the denoiser's prediction (B,C,h',w') to the part that belongs to x_t (B,C,h,w)."""
        return prediction

    def finish(self, image: Tensor, batch: Batch) -> Tensor:
        """Postprocess a sampled image (B,3,H,W) in [-1,1]; a task can restore pixels that must not change."""
        return image


class BoundInputs:
    """A task's inputs and the codec that encodes them. Copies of a model share one instance, which has no weights.

    Args:
        inputs: The task's inputs.
        codec: Codec that encodes images of conditions.
        side: Height and width of the latents.
    """

    def __init__(self, inputs: Inputs, codec: Codec, side: int):
        self.inputs, self.codec, self.side = inputs, codec, side

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundInputs:
        return self

    def extra(self, batch: Batch, keep: Keep) -> Tensor | None:
        """Encode conditions as channels next to x_t, (B,E,h,w), with this codec."""
        return self.inputs.extra(batch, keep, self.encode)

    def source(self, batch: Batch, keep: Keep) -> Source | None:
        """Return the image that the task edits."""
        return self.inputs.source(batch, keep)

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as latents (B,C,h,w), without gradients."""
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            return self.codec.encode(image)


def both(keep: Keep, present: Keep) -> Keep:
    """Combine two masks: a condition must be neither dropped nor absent."""
    combined = {name: keep[name] & x if name in keep else x for name, x in present.items()}
    return {**keep, **combined}


def present(keep: Keep, name: str, like: Tensor) -> Tensor:
    """Return a factor that is zero for items whose condition is dropped.

    Args:
        keep: The conditions that are dropped.
        name: Name of the condition.
        like: (B,C,h,w), a tensor with the type and device of the result.

    Returns:
        (B,1,1,1), 1 if an item has the condition, else 0.
    """
    mask = keep.get(name)
    return torch.ones_like(like[:, :1, :1, :1]) if mask is None else mask[:, None, None, None].to(like.dtype)
