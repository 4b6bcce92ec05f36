"""Conversion of latents to a transformer's tokens and back, without visible seams between patches."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.models.layers import zero_module


class PatchEmbedding(nn.Module):
    """Converts latents to tokens of patch x patch latent pixels.

    Convolutions at the latent's resolution come first, so that patches overlap (Xiao et al. 2021, arXiv 2106.14881).

    Args:
        channels: C, channels of the latent.
        width: Channels of a token.
        patch: p, side of a token in latent pixels.
    """

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.patch = patch
        self.features = width if patch == 1 else max(32, width // patch)  # channels at the latent's resolution
        self.first = nn.Conv2d(channels, self.features, 3, padding=1)
        self.second = nn.Conv2d(self.features, self.features, 3, padding=1)
        self.merge = nn.Conv2d(self.features, width, patch, stride=patch)

    def forward(self, x_t: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Embed x_t (B,C,h,w). `change` is applied to the output of the first convolution.

        Returns:
            Features (B,features,h,w) and tokens (B,h/p w/p,width).
        """
        features = change(self.first(x_t))  # (B,features,h,w)
        features = features + self.second(F.silu(features))
        return features, self.merge(features).flatten(2).transpose(1, 2)


class PatchOutput(nn.Module):
    """Converts tokens to the prediction, with convolutions that cross patch borders. Its output starts at zero.

    Args:
        channels: C, channels of the prediction.
        width: Channels of a token.
        embedding: The embedding that the tokens come from.
    """

    def __init__(self, channels: int, width: int, embedding: PatchEmbedding):
        super().__init__()
        self.patch, features = embedding.patch, embedding.features
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_module(nn.Linear(width, 2 * width))
        self.split = nn.Linear(width, features * self.patch**2)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.last = zero_module(nn.Conv2d(features, channels, 3, padding=1))

    def forward(self, x: Tensor, c: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
        """Convert tokens to the prediction.

        Args:
            x: Tokens, (B,L,width).
            c: Conditioning vector for the modulation, (B,width).
            features: Features of the embedding, (B,features,h,w), added as a skip connection.
            size: Height and width of the token grid.

        Returns:
            The prediction, (B,C,h,w).
        """
        scale, shift = self.modulation(c)[:, None].chunk(2, dim=-1)  # (B,1,width) each
        x = self.split(self.norm(x) * (1 + scale) + shift)  # (B,L,features p^2)
        y = F.pixel_shuffle(x.transpose(1, 2).unflatten(2, size), self.patch) + features  # (B,features,h,w)
        return self.last(F.silu(y + self.first(F.silu(y))))
