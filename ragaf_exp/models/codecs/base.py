"""What every codec provides: images to latents and back."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ragaf_exp.core.types import Batch
from ragaf_exp.models.loading.hub import fingerprint


class Codec(nn.Module, ABC):
    """Frozen: not trained, not in checkpoints.

    channels: of the latents. downscale: image pixels per latent pixel. fingerprint: of all that decides latents.
    """

    channels: int
    downscale: int

    @abstractmethod
    def encode(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [-1,1] -> latents (B,channels,H/downscale,W/downscale)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """(B,channels,h,w) -> images (B,3,h downscale,w downscale), clamped to [-1,1]; differentiable."""

    def latent_shape(self, batch: Batch) -> torch.Size:
        """(B,C,h,w) of the batch's latents, without encoding it."""
        height, width = (side // self.downscale for side in batch.image.shape[2:])
        return torch.Size((len(batch), self.channels, height, width))

    def blank(self, height: int, width: int) -> Tensor:
        """(1,C,h,w), on the CPU: the latent of a grey image of height x width pixels."""
        device = next(self.parameters(), torch.empty(0)).device
        return self.encode(torch.zeros(1, 3, height, width, device=device)).cpu()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self, type(self).__name__, self.channels, self.downscale)
