"""Conversion of latents to a transformer's tokens and back, without visible seams between patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.models.layers import zero_module


class PatchEmbedding(nn.Module):
    """Converts latents to tokens at a distance of patch latent pixels.

    Convolutions at the latent's resolution come first (Xiao et al. 2021, arXiv 2106.14881). Tokens overlap: each reads
    twice its patch in each direction.

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
        overlap = patch // 2
        self.merge = nn.Conv2d(self.features, width, patch + 2 * overlap, stride=patch, padding=overlap)

    def forward(self, x_t: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Embed x_t (B,C,h,w). `change` is applied to the output of the first convolution.

        Returns:
            Features (B,features,h,w) and tokens (B,h/p w/p,width).
        """
        features = change(self.first(x_t))  # (B,features,h,w)
        features = features + self.second(F.silu(features))
        return features, self.merge(features).flatten(2).transpose(1, 2)


class OverlapAdd(nn.ConvTranspose2d):
    """Enlarges features by windows that overlap, so that no border between patches shows.

    Each cell fills a window of twice the patch's side, which fades out linearly towards the middle of the next cells; the
    windows of all cells add up to one. It is the synthesis of a lapped transform (Malvar & Staelin 1989).

    Args:
        inputs: C, channels of a cell.
        outputs: C', channels of a pixel.
        patch: p, pixels per cell in each direction.
    """

    window: Tensor  # (p + 2 (p // 2),) squared

    def __init__(self, inputs: int, outputs: int, patch: int):
        overlap = patch // 2
        self.crop = patch + overlap  # pixels beyond the image at each side
        super().__init__(inputs, outputs, patch + 2 * overlap, stride=patch, padding=self.crop)
        self.register_buffer("window", fading_window(patch, overlap), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Enlarge x (B,C,h,w) to (B,C',p h,p w)."""
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")  # (B,C,h+2,w+2): the windows at the border are complete
        return F.conv_transpose2d(x, self.weight * self.window, self.bias, self.stride, padding=self.crop)


def fading_window(patch: int, overlap: int) -> Tensor:
    """Return a window (p + 2 o, p + 2 o) that fades over 2 o pixels, and whose copies at distance p add up to one.

    Args:
        patch: p, distance of the windows.
        overlap: o, pixels that a window reaches beyond its patch.
    """
    side = torch.arange(patch + 2 * overlap) + 0.5
    if overlap == 0:
        return torch.ones(patch, patch)
    fading = (torch.minimum(side, side.flip(0)) / (2 * overlap)).clamp(max=1)
    return torch.outer(fading, fading)


class PatchOutput(nn.Module):
    """Converts tokens to the prediction, without seams between patches. Its output starts at zero.

    Args:
        channels: C, channels of the prediction.
        width: Channels of a token.
        embedding: The embedding that the tokens come from.
        pixels: Side of the patches of pixels that a latent pixel holds; 0 = latents of an autoencoder.
    """

    def __init__(self, channels: int, width: int, embedding: PatchEmbedding, pixels: int = 0):
        super().__init__()
        self.pixels, features = pixels, embedding.features
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zero_module(nn.Linear(width, 2 * width))
        self.split = OverlapAdd(width, features, embedding.patch)
        self.first = nn.Conv2d(features, features, 3, padding=1)
        last = OverlapAdd(features, 3, pixels) if pixels else nn.Conv2d(features, channels, 3, padding=1)
        self.last = zero_module(last)

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
        x = self.norm(x) * (1 + scale) + shift
        y = self.split(x.transpose(1, 2).unflatten(2, size)) + features  # (B,features,h,w)
        y = self.last(F.silu(y + self.first(F.silu(y))))  # (B,3,H,W) with pixels
        return F.pixel_unshuffle(y, self.pixels) if self.pixels else y
