"""Codecs (config group `codec`): images in [-1,1] to latents and back. Frozen: not trained, not in checkpoints."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.codecs.base import Codec


class Pixel(Codec):
    """Space to depth: a latent pixel is a patch of the image, lossless, nothing to download.

    patch: side of a patch in image pixels. Latents are (B, 3 patch^2, H/patch, W/patch), in [-1,1].
    """

    def __init__(self, patch: limits.Patch = 4):
        super().__init__()
        if patch < 1:
            raise UserError(f"codec.patch={patch}: must be at least 1")
        self.patch = patch
        self.channels = 3 * patch * patch
        self.downscale = patch

    def encode(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,3 p^2,H/p,W/p)."""
        return F.pixel_unshuffle(image, self.patch)

    def decode(self, latent: Tensor) -> Tensor:
        """(B,3 p^2,h,w) -> (B,3,h p,w p), clamped to [-1,1]."""
        return F.pixel_shuffle(latent, self.patch).clamp(-1, 1)
