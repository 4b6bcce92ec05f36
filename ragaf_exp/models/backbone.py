"""Denoiser networks (config group `backbone`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ragaf_exp.errors import UserError, at_least
from ragaf_exp.models import attention, taps
from ragaf_exp.models.attention import WordBias
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.hint import zero


class PixelHead(nn.Module):
    """A residual at full resolution over a patch latent: no seams between patches, edges where the strokes are.

    Its hidden features are the injection point `out`. The zero-initialised last layer makes it the identity at first.
    """

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.first = nn.Conv2d(6, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = zero(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, prediction: Tensor, x_t: Tensor, added: Tensor | None) -> Tensor:
        """prediction, x_t (B,3p^2,h,w), added (B,width,H,W) -> (B,3p^2,h,w)."""
        pixels = torch.cat([F.pixel_shuffle(x, self.patch) for x in (prediction, x_t)], dim=1)  # (B,6,H,W)
        x = self.first(pixels) if added is None else self.first(pixels) + added
        x = self.last(F.silu(self.middle(F.silu(x))))  # (B,3,H,W)
        return prediction + F.pixel_unshuffle(x, self.patch)


class TinyUNet(nn.Module):
    """diffusers' UNet2DConditionModel, small enough to train on two CPU cores in minutes.

    channels: latent channels, text_width: D, patch: of the codec (all wiring).
    widths: channels per resolution; the lower ones attend to the text. layers: residual blocks per resolution.
    heads: attention heads. head_width: channels of the full-resolution head, 0 = none.
    """

    def __init__(
        self, channels: int, text_width: int, patch: int,
        widths: list[int] = (64, 128), layers: int = 1, heads: int = 4, head_width: int = 16,
    ):  # fmt: skip
        super().__init__()
        if len(widths) < 2:
            raise UserError(f"backbone.widths={list(widths)}: give at least two resolutions, as [64,128]")
        if any(w % 32 or w < 32 for w in widths):
            raise UserError(f"backbone.widths={list(widths)}: each must be a multiple of 32 (group normalisation)")
        at_least("backbone", 1, layers=layers, heads=heads)
        at_least("backbone", 0, head_width=head_width)
        lower = len(widths) - 1
        self.unet = UNet2DConditionModel(
            in_channels=channels, out_channels=channels, layers_per_block=layers, block_out_channels=tuple(widths),
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * lower,
            up_block_types=("CrossAttnUpBlock2D",) * lower + ("UpBlock2D",),
            cross_attention_dim=text_width, attention_head_dim=heads,
            norm_num_groups=min(32, min(widths) // 2),  # groups of one channel would take the timestep away again
        )  # fmt: skip
        self.cross_layers = attention.install(self.unet)
        self.head = PixelHead(patch, head_width) if head_width else None
        self.patch, self.head_width = patch, head_width
        self.stride = 2**lower

    def shapes(self, side: int) -> dict[str, taps.Shape]:
        """Channels and resolution at every injection point, for latents of side x side."""
        found = taps.trace(self.unet, side, side)
        pixels = side * self.patch
        return found if self.head is None else found | {taps.OUT: (self.head_width, pixels, pixels)}

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: dict[str, Tensor], words: WordBias | None = None
    ) -> Tensor:
        """x_t (B,C,h,w), t (B,) timesteps -> prediction (B,C,h,w).

        residuals: injection point -> (B,C',h',w'), added to the features there.
        """

        def add(point: str, features: Tensor) -> Tensor:
            return features + residuals[point] if point in residuals else features

        with taps.tapped(self.unet, add):
            out = self.unet(
                x_t, t, text.tokens, encoder_attention_mask=text.mask, cross_attention_kwargs={"word_bias": words}
            ).sample
        return out if self.head is None else self.head(out, x_t, residuals.get(taps.OUT))
