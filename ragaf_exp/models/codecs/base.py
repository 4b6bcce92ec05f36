"""The interface of codecs, which encode images as latents and decode latents to images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.core.types import Batch
from ragaf_exp.models.loading.hub import fingerprint


class Codec(nn.Module, ABC):
    """A frozen image codec. It is not trained and not stored in checkpoints.

    Attributes:
        channels: C, latent channels.
        downscale: Image pixels per latent pixel, along each side.
        shift: Latents are (z - shift) scale of the network's output z, in codecs with one number for all channels.
        scale: See `shift`.
    """

    channels: int
    downscale: int
    shift: float = 0.0
    scale: float = 1.0

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as latents (B,C,H/downscale,W/downscale)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B,C,h,w) to images (B,3,h downscale,w downscale), clamped to [-1,1]; differentiable."""

    def latent_shape(self, batch: Batch) -> torch.Size:
        """Return the shape (B,C,h,w) of a batch's latents without encoding it."""
        height, width = (side // self.downscale for side in batch.image.shape[2:])
        return torch.Size((len(batch), self.channels, height, width))

    def blank(self, height: int, width: int) -> Tensor:
        """Encode a grey image of height x width pixels; returns its latent (1,C,h,w) on the CPU."""
        device = next(self.parameters(), torch.empty(0)).device
        return self.encode(torch.zeros(1, 3, height, width, device=device)).cpu()

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines latents."""
        return fingerprint(self, type(self).__name__, self.channels, self.downscale)


class SharedCodec:
    """A reference to the codec that copies of a model share, and that is no part of it."""

    def __init__(self, codec: Codec):
        self.codec = codec

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedCodec:
        return self

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as latents (B,C,h,w), without gradients and without autocast."""
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            return self.codec.encode(image)
