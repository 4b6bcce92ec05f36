"""From latents to a transformer's tokens and back, without borders between patches."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.models.layers import zero_module


class PatchEmbedding(nn.Module):
    """Latent cells to tokens of patch x patch cells.

    Convolutions at the latent's resolution come first, so that patches overlap (Xiao et al. 2021, arXiv 2106.14881).
    """

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.patch = patch
        self.features = width if patch == 1 else max(32, width // patch)  # channels at the latent's resolution
        self.first = nn.Conv2d(channels, self.features, 3, padding=1)
        self.second = nn.Conv2d(self.features, self.features, 3, padding=1)
        self.merge = nn.Conv2d(self.features, width, patch, stride=patch)

    def forward(self, x_t: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """x_t (B,C,h,w), change: of the first features -> features (B,features,h,w) and tokens (B,h/p w/p,width)."""
        features = change(self.first(x_t))
        features = features + self.second(F.silu(features))
        return features, self.merge(features).flatten(2).transpose(1, 2)


class PatchOutput(nn.Module):
    """Tokens to the prediction, by convolutions across the borders of patches; it starts at zero."""

    def __init__(self, channels: int, width: int, embedding: PatchEmbedding):
        super().__init__()
        self.patch, features = embedding.patch, embedding.features
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_module(nn.Linear(width, 2 * width))
        self.split = nn.Linear(width, features * self.patch**2)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.last = zero_module(nn.Conv2d(features, channels, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens to the prediction.

        Args:
            x: tokens, (B,L,width).
            c: condition of the modulation, (B,width).
            features: of the embedding, (B,features,h,w).
            size: height and width of the grid of tokens.

        Returns:
            (B,C,h,w).
        """
        scale, shift = self.modulation(c)[:, None].chunk(2, dim=-1)
        x = self.split(self.norm(x) * (1 + scale) + shift)
        y = F.pixel_shuffle(x.transpose(1, 2).unflatten(2, size), self.patch) + features
        return self.last(F.silu(y + self.first(F.silu(y))))
