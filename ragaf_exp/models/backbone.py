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


class SeamHead(nn.Module):
    """A residual at full resolution over a patch latent: removes the seams that per-patch outputs leave.

    The zero-initialised last layer makes it the identity at the start.
    """

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.net = nn.Sequential(
            nn.Conv2d(6, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            zero(nn.Conv2d(width, 3, 3, padding=1)),
        )  # fmt: skip

    def forward(self, prediction: Tensor, x_t: Tensor) -> Tensor:
        """(B,3p^2,h,w) both -> (B,3p^2,h,w)."""
        pixels = torch.cat([F.pixel_shuffle(x, self.patch) for x in (prediction, x_t)], dim=1)  # (B,6,H,W)
        return prediction + F.pixel_unshuffle(self.net(pixels), self.patch)


class TinyUNet(nn.Module):
    """diffusers' UNet2DConditionModel, small enough to train on two CPU cores in minutes.

    channels: latent channels, text_width: D, patch: of the codec (all wiring).
    widths: channels per resolution; the lower ones attend to the text. layers: residual blocks per resolution.
    heads: attention heads. seam_width: channels of the full-resolution head, 0 = none.
    """

    def __init__(
        self, channels: int, text_width: int, patch: int,
        widths: list[int] = (64, 128), layers: int = 1, heads: int = 4, seam_width: int = 16,
    ):  # fmt: skip
        super().__init__()
        if len(widths) < 2:
            raise UserError(f"backbone.widths={list(widths)}: give at least two resolutions, as [64,128]")
        if any(w % 32 or w < 32 for w in widths):
            raise UserError(f"backbone.widths={list(widths)}: each must be a multiple of 32 (group normalisation)")
        at_least("backbone", 1, layers=layers, heads=heads)
        at_least("backbone", 0, seam_width=seam_width)
        lower = len(widths) - 1
        self.unet = UNet2DConditionModel(
            in_channels=channels, out_channels=channels, layers_per_block=layers, block_out_channels=tuple(widths),
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * lower,
            up_block_types=("CrossAttnUpBlock2D",) * lower + ("UpBlock2D",),
            cross_attention_dim=text_width, attention_head_dim=heads,
        )  # fmt: skip
        self.cross_layers = attention.install(self.unet)
        self.seam = SeamHead(patch, seam_width) if seam_width and patch > 1 else None
        self.stride = 2**lower

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
        return out if self.seam is None else self.seam(out, x_t)
