"""Latents of the sketch as further input channels of the denoiser (config group `hint`), as in Flux Control."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.codecs.base import Codec, SharedCodec
from ragaf_exp.models.control.base import Hint
from ragaf_exp.models.layers import zero_module

FIRST = "in"


class TokensHint(Hint):
    """Encodes the sketch, white strokes on black, by the codec, and embeds its patches like those of x_t.

    The result is added to the embedded x_t, which equals concatenating both by channel.

    Args:
        shapes: Injection point -> (C,h,w) (wiring).
        backbone: The denoiser (wiring).
        codec: The codec (wiring).
        zero_init: The embedding starts at zero, which leaves a pretrained backbone unchanged.
    """

    uses_codec = True

    def __init__(self, shapes: dict[str, Shape], backbone: Backbone, codec: Codec, zero_init: bool = True):
        super().__init__()
        self.width, self.patch, self.shared = codec.channels, backbone.in_patch, SharedCodec(codec)
        cells = self.patch**2
        self.out = nn.Conv2d(codec.channels * cells, shapes[FIRST][0] * cells, 1)
        if zero_init:
            zero_module(self.out)

    def features(self, sketch: Tensor) -> dict[tuple[int, int], Tensor]:
        """Encode a sketch (B,1,H,W) in [0,1]; returns the latent's resolution (h,w) -> its latent (B,C,h,w)."""
        latent = self.shared.encode(2 * sketch.float().expand(-1, 3, -1, -1) - 1)
        return {(latent.shape[2], latent.shape[3]): latent}

    def forward(self, features: dict[tuple[int, int], Tensor], keep: Tensor) -> dict[str, Tensor]:
        """Return the residual (B,C',h,w) at `in`. keep (B,) bool: False drops the sketch (zero)."""
        (latent,) = features.values()
        embedded = F.pixel_shuffle(self.out(F.pixel_unshuffle(latent, self.patch)), self.patch)
        return {FIRST: embedded * keep[:, None, None, None]}
