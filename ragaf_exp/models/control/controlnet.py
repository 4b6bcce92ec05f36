"""A ControlNet as sketch encoder (config group `hint`): Zhang et al. 2023, arXiv 2302.05543; diffusers' own network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.attention import BiasedAttention
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.control.base import Hint, check_residual_shapes, require_unet
from ragaf_exp.models.loading.hub import Origin, network


class Embedding(ControlNetConditioningEmbedding):
    """diffusers' embedding of the sketch in two halves: the first is the same at every timestep, and is what regions
    pool; the second starts at zero."""

    def hidden(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,width,h,w)."""
        x = F.silu(self.conv_in(image))
        for block in self.blocks:
            x = F.silu(block(x))
        return x

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv_out(hidden)


class TextMasked(BiasedAttention):
    """diffusers' ControlNet passes no mask of the text on; this takes it as an argument of its own."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, text_bias=None) -> Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, text_bias)


class ControlNetHint(Hint):
    """A trainable copy of the UNet's encoder; its outputs are added to the UNet's skip connections and middle.

    backbone, side: of the latents, downscale: image pixels per latent pixel (wiring). source, revision, offline,
    variant: of a trained ControlNet, as in the group `backbone`; without a source it starts as the UNet's copy.
    channels: of the embedding, each but the last at half the resolution of the one before. A dropped sketch adds
    nothing: the UNet alone answers.
    """

    def __init__(
        self, backbone: Backbone, side: int, downscale: int, source: str = "", revision: str = "",
        offline: bool = False, variant: str = "", channels: limits.Widths = (16, 32, 96, 256),
    ):  # fmt: skip
        super().__init__()
        unet = require_unet(backbone, "controlnet")
        if any(c < 1 for c in channels) or 2 ** (len(channels) - 1) != downscale:
            raise UserError(f"hint.channels={list(channels)}: halves the image {max(0, len(channels) - 1)} times, and the "
                            f"codec's latents are 1/{downscale} of it; give log2({downscale}) + 1 numbers")  # fmt: skip
        if source:
            self.net, self.source = network(ControlNetModel, Origin("hint", source, revision, offline, variant), "", {})
        else:
            self.net = unet.controlnet(tuple(channels))
        key = f"hint.source={source}" if source else "hint"
        check_residual_shapes(key, "skip", _trace(self.net, side, downscale), unet.skip_shapes(side, side))
        self.net.controlnet_cond_embedding.__class__ = Embedding
        names = list(self.net.attn_processors)
        self.net.set_attn_processor({n: TextMasked(0 if ".attn2." in n else None) for n in names})
        self.width = self.net.config.conditioning_embedding_out_channels[-1]
        self.inputs = self.net.config.in_channels

    def features(self, sketch: Tensor) -> dict[tuple[int, int], Tensor]:
        """(B,1,H,W) in [0,1] -> the latent's resolution -> (B,width,h,w)."""
        hidden = self.net.controlnet_cond_embedding.hidden(sketch.expand(-1, 3, -1, -1))
        return {tuple(hidden.shape[2:]): hidden}

    def forward(self, features: dict[tuple[int, int], Tensor], keep: Tensor) -> dict[str, Tensor]:
        """What `at` needs besides x_t, t and text."""
        (hidden,) = features.values()
        return {"hidden": hidden, "keep": keep[:, None, None, None]}

    def at(self, given: dict[str, Tensor], x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """x (B,C,h,w): the UNet's own input -> residuals of its skip connections and of its middle."""
        seen = text.mask if text.seen is None else text.seen
        bias = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, MASK_VALUE)[:, None]  # (B,1,T)
        skips, middle = self.net(
            x[:, : self.inputs], t, text.tokens, given["hidden"], cross_attention_kwargs={"text_bias": bias},
            return_dict=False,
        )  # fmt: skip
        found = {f"{taps.SKIP}{i}": skip for i, skip in enumerate(skips)} | {taps.SKIP_MID: middle}
        return {point: residual * given["keep"] for point, residual in found.items()}


def _trace(net: ControlNetModel, side: int, downscale: int) -> dict[str, Shape]:
    """The residuals' shapes, on the meta device."""
    c: Any = net.config
    with torch.device("meta"), torch.no_grad():
        ghost = ControlNetModel.from_config(c)
        skips, middle = ghost(
            torch.empty(1, c.in_channels, side, side), torch.zeros(1), torch.empty(1, 1, c.cross_attention_dim),
            torch.empty(1, c.conditioning_channels, side * downscale, side * downscale), return_dict=False,
        )  # fmt: skip
    found = {f"{taps.SKIP}{i}": tuple(skip.shape[1:]) for i, skip in enumerate(skips)}
    return found | {taps.SKIP_MID: tuple(middle.shape[1:])}
