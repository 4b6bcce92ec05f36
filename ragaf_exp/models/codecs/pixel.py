"""The codec without weights (config group `codec`)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.codecs.base import Codec


class Pixel(Codec):
    """Lossless space-to-depth: each latent pixel holds a patch of the image, in [-1,1].

    Args:
        patch: p, side of a patch in image pixels.

    Raises:
        UserError: patch is not positive.
    """

    def __init__(self, patch: limits.Patch = 4):
        super().__init__()
        if patch < 1:
            raise UserError(f"codec.patch={patch}: must be at least 1")
        self.patch = patch
        self.channels = 3 * patch * patch
        self.downscale = patch

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as latents (B,3 p^2,H/p,W/p)."""
        return F.pixel_unshuffle(image, self.patch)

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B,3 p^2,h,w) to images (B,3,h p,w p), clamped to [-1,1]."""
        return F.pixel_shuffle(latent, self.patch).clamp(-1, 1)
