"""What every denoiser backbone provides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffusers import UNet2DConditionModel
from torch import Tensor

from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule


class Backbone(PretrainedModule):
    """A denoiser around diffusers' UNet2DConditionModel, which its subclasses build as `unet`.

    pretrained: it has seen images before, so memory.tune decides in stage 1 too what of it is trained. stride: the
    sides of its latents must be multiples of it; diffusers' UNets take any.
    """

    pretrained = False
    stride = 1
    schedule: dict[str, Any] | None = None  # the diffusion that it was trained with, where it was
    unet: UNet2DConditionModel

    def shapes(self, side: int) -> dict[str, taps.Shape]:
        """Channels and resolution at every injection point, for latents of side x side."""
        return taps.trace(self.unet, side, side)

    def set_full_inpaint_mask(self, blank: Callable[[int], Tensor], side: int) -> None:
        """Tell a backbone that paints into images that all is to be painted. blank: side in pixels -> latent."""

    def inputs(self, x_t: Tensor) -> Tensor:
        """x_t (B,C,h,w) -> what the UNet's first layer takes."""
        return x_t

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: dict[str, Tensor], words: WordBias | None = None
    ) -> Tensor:
        """x_t (B,C,h,w), t (B,) timesteps -> prediction (B,C,h,w).

        residuals: injection point -> (B,C',h',w'), added to the features there.
        """

        def add(point: str, features: Tensor) -> Tensor:
            return features + residuals[point] if point in residuals else features

        skips = [residuals[f"{taps.SKIP}{i}"] for i in range(sum(p.startswith(taps.SKIP) for p in residuals) - 1)]
        with taps.adapted(self.unet, add), taps.tapped(self.unet, add):
            return self.unet(
                self.inputs(x_t), t, text.tokens, encoder_attention_mask=text.mask if text.seen is None else text.seen,
                cross_attention_kwargs={"word_bias": words}, down_block_additional_residuals=skips or None,
                mid_block_additional_residual=residuals.get(taps.SKIP_MID),
            ).sample  # fmt: skip
