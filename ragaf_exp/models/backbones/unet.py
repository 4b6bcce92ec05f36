"""Denoiser networks (config group `backbone`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.tensors import brief
from ragaf_exp.models.backbones import attention
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.base import NO_MODULATIONS
from ragaf_exp.models.backbones.points import OUT, Injected, Modulation, Shape
from ragaf_exp.models.backbones.unet_backbone import UNetBackbone
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.layers import zero_module


class PixelHead(nn.Module):
    """Refines a prediction in patch latents at full resolution, to avoid seams between patches and to align edges.

    Its hidden features are the injection point `out`. The last layer is zero-initialised, so it starts as the identity.
    """

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.first = nn.Conv2d(6, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = zero_module(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, prediction: Tensor, x_t: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Refine a prediction.

        Args:
            prediction: The backbone's prediction, (B,3p^2,h,w).
            x_t: Noised latents, (B,3p^2,h,w).
            change: Function that is applied to the hidden features, (B,width,H,W).

        Returns:
            (B,3p^2,h,w).
        """
        pixels = torch.cat([F.pixel_shuffle(x, self.patch) for x in (prediction, x_t)], dim=1)  # (B,6,H,W)
        x = self.last(F.silu(self.middle(F.silu(change(self.first(pixels))))))  # (B,3,H,W)
        return prediction + F.pixel_unshuffle(x, self.patch)


def build_unet(**config: Any) -> UNet2DConditionModel:
    """Build a UNet from its config.

    Raises:
        UserError: diffusers rejects the settings.
    """
    try:
        return UNet2DConditionModel(**config)
    except ValueError as error:
        raise UserError(f"backbone: diffusers rejects these settings ({brief(error)})") from error


class TinyUNet(UNetBackbone):
    """diffusers' UNet2DConditionModel, small enough to train on two CPU cores in minutes.

    Args:
        channels: C, latent channels (wiring).
        text_width: D, channels of the text tokens (wiring).
        patch: Side of the codec's patches in pixels (wiring).
        widths: Channels per resolution; all resolutions but the first attend to the text.
        layers: Residual blocks per resolution.
        heads: Number of attention heads.
        head_width: Channels of the full-resolution head, 0 = none.

    Raises:
        UserError: The settings are inconsistent.
    """

    def __init__(
        self, channels: int, text_width: int, patch: int, widths: limits.UNetWidths = (64, 128),
        layers: limits.Blocks = 1, heads: limits.Heads = 4, head_width: limits.Channels = 16,
    ):  # fmt: skip
        super().__init__()
        if len(widths) < 2:
            raise UserError(f"backbone.widths={list(widths)}: give at least two resolutions, as [64,128]")
        if any(w % 32 or w < 32 for w in widths):
            raise UserError(f"backbone.widths={list(widths)}: each must be a multiple of 32 (group normalisation)")
        at_least("backbone", 1, layers=layers, heads=heads)
        if heads > min(widths[1:]):
            raise UserError(f"backbone.heads={heads}: must be at most the attention layers' channels, {list(widths[1:])}")
        at_least("backbone", 0, head_width=head_width)
        if head_width and channels != 3 * patch**2:
            raise UserError(f"backbone.head_width={head_width}: the head works on pixels, and this codec's latents have "
                            f"{channels} channels; set backbone.head_width=0 or codec=pixel")  # fmt: skip
        lower = len(widths) - 1
        self.unet = UNet2DConditionModel(
            in_channels=channels, out_channels=channels, layers_per_block=layers, block_out_channels=tuple(widths),
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * lower,
            up_block_types=("CrossAttnUpBlock2D",) * lower + ("UpBlock2D",),
            cross_attention_dim=text_width, attention_head_dim=heads,
            norm_num_groups=min(32, min(widths) // 2),  # groups of one channel would normalise the timestep away
        )  # fmt: skip
        self.cross_layers = attention.install(self.unet)
        self.head = PixelHead(patch, head_width) if head_width else None
        self.patch, self.head_width = patch, head_width
        self.stride = 2**lower

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Return channels and resolution at every injection point, for latents of height x width."""
        shapes = super().shapes(height, width)
        pixels = (height * self.patch, width * self.patch)
        return shapes if self.head is None else shapes | {OUT: (self.head_width, *pixels)}

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS,
    ) -> Tensor:  # fmt: skip
        """Predict the diffusion target; the head refines it at full resolution.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), added to the features there.
            words: Bias of image-to-text attention.
            modulations: Injection point -> modulation of the features there, applied after the residual.

        Returns:
            The prediction, (B,C,h,w).
        """
        out = super().forward(x_t, t, text, residuals, words, modulations)
        change = partial(Injected(residuals, modulations).on_map, OUT)
        return out if self.head is None else self.head(out, x_t, change)

    def recomputed_blocks(self) -> list[nn.Module]:
        """Return the head alone: diffusers checkpoints the blocks of its UNet."""
        return [] if self.head is None else [self.head]


class ScratchUNet(UNetBackbone):
    """A UNet of any size in Stable Diffusion's layout, trained from scratch. Every level but the last has attention.

    Args:
        channels: C, latent channels (wiring).
        text_width: D, channels of the text tokens (wiring).
        base: Base number of channels.
        multipliers: Channels of each level, as a multiple of base.
        layers: Residual blocks per encoder level; diffusers adds one per decoder level to match the skip connections.
        heads: Number of attention heads at every level.

    Raises:
        UserError: The settings are inconsistent.
    """

    def __init__(
        self, channels: int, text_width: int, base: limits.UNetWidth = 160,
        multipliers: limits.Multipliers = (1, 2, 4, 4), layers: limits.Blocks = 1, heads: limits.Heads = 8,
    ):  # fmt: skip
        super().__init__()
        at_least("backbone", 1, layers=layers, heads=heads)
        if len(multipliers) < 2 or any(m < 1 for m in multipliers):
            raise UserError(f"backbone.multipliers={list(multipliers)}: give at least two numbers from 1, as [1,2,4,4]")
        if base < 32 or base % 32:
            raise UserError(f"backbone.base={base}: must be a multiple of 32 (group normalisation)")
        if any(base * m % heads for m in multipliers):
            raise UserError(f"backbone.heads={heads}: must divide every level's channels, {base} x {list(multipliers)}")
        attending = len(multipliers) - 1
        self.unet = build_unet(
            in_channels=channels, out_channels=channels, layers_per_block=layers,
            block_out_channels=tuple(base * m for m in multipliers),
            down_block_types=("CrossAttnDownBlock2D",) * attending + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attending,
            cross_attention_dim=text_width, attention_head_dim=heads,
        )  # fmt: skip
        self.cross_layers = attention.install(self.unet)
