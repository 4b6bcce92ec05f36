"""The ControlNet of diffusers as a sketch encoder (config group `hint`): Zhang et al. 2023, arXiv 2302.05543."""

from __future__ import annotations

from pathlib import Path
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
from ragaf_exp.models.loading.hub import Origin, file_source, network
from ragaf_exp.models.loading.single_file import is_single_file, load_into


class Embedding(ControlNetConditioningEmbedding):
    """The sketch embedding of diffusers in two halves.

    The first half does not depend on the timestep, and regions pool its output. The second half starts at zero.
    """

    def hidden(self, image: Tensor) -> Tensor:
        """Apply the first half: (B,3,H,W) -> (B,width,h,w)."""
        x = F.silu(self.conv_in(image))
        for block in self.blocks:
            x = F.silu(block(x))
        return x

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the second half: (B,width,h,w) -> (B,C,h,w)."""
        return self.conv_out(hidden)


class TextMasked(BiasedAttention):
    """Takes the text mask as a separate argument, because the ControlNet of diffusers does not pass its own on."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, text_bias=None) -> Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, text_bias)


class ControlNetHint(Hint):
    """A trainable copy of the UNet's encoder whose outputs are added to the UNet's skip connections and mid block.

    The residuals of a dropped sketch are zero, which leaves the UNet unchanged.

    Args:
        backbone: The UNet (wiring).
        side: Height and width of the latents (wiring).
        downscale: Image pixels per latent pixel (wiring).
        source: A folder, single file or hub id of a trained ControlNet; "" = start as a copy of the UNet's encoder.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        channels: Widths of the sketch embedding. Each level after the first halves the resolution.

    Raises:
        UserError: The source is missing or damaged, or does not fit the backbone.
    """

    def __init__(
        self, backbone: Backbone, side: int, downscale: int, source: str = "", revision: str = "",
        offline: bool = False, variant: str = "", channels: limits.Widths = (16, 32, 96, 256),
    ):  # fmt: skip
        super().__init__()
        unet = require_unet(backbone, "controlnet")
        if any(c < 1 for c in channels) or 2 ** (len(channels) - 1) != downscale:
            raise UserError(f"hint.channels={list(channels)}: halves the image {max(0, len(channels) - 1)} times, but the "
                            f"codec's latents are 1/{downscale} of it; give log2({downscale}) + 1 numbers")  # fmt: skip
        if is_single_file(source):
            self.net, self.source = unet.controlnet(tuple(channels)), file_source(source)
            load_into(self.net, Path(source).expanduser(), f"hint.source={source}")
        elif source:
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
        """Encode a sketch (B,1,H,W) in [0,1]; returns the latent's resolution (h,w) -> features (B,width,h,w)."""
        hidden = self.net.controlnet_cond_embedding.hidden(sketch.expand(-1, 3, -1, -1))
        return {tuple(hidden.shape[2:]): hidden}

    def forward(self, features: dict[tuple[int, int], Tensor], keep: Tensor) -> dict[str, Tensor]:
        """Return the inputs of `at` that do not depend on the timestep. keep (B,) bool: False drops the sketch."""
        (hidden,) = features.values()
        return {"hidden": hidden, "keep": keep[:, None, None, None]}

    def at(self, given: dict[str, Tensor], x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Compute the residuals of the UNet's skip connections and mid block.

        Args:
            given: Output of forward.
            x: Input of the UNet's first layer, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual (B,C',h',w').
        """
        visible = text.mask if text.attended is None else text.attended
        bias = torch.zeros_like(visible, dtype=x.dtype).masked_fill(~visible, MASK_VALUE)[:, None]  # (B,1,T)
        skips, middle = self.net(
            x[:, : self.inputs], t, text.tokens, given["hidden"], cross_attention_kwargs={"text_bias": bias},
            return_dict=False,
        )  # fmt: skip
        residuals = {f"{taps.SKIP}{i}": skip for i, skip in enumerate(skips)} | {taps.SKIP_MID: middle}
        return {point: residual * given["keep"] for point, residual in residuals.items()}


def _trace(net: ControlNetModel, side: int, downscale: int) -> dict[str, Shape]:
    """Compute the residuals' shapes on the meta device."""
    c: Any = net.config
    with torch.device("meta"), torch.no_grad():
        ghost = ControlNetModel.from_config(c)
        skips, middle = ghost(
            torch.empty(1, c.in_channels, side, side), torch.zeros(1), torch.empty(1, 1, c.cross_attention_dim),
            torch.empty(1, c.conditioning_channels, side * downscale, side * downscale), return_dict=False,
        )  # fmt: skip
    shapes = {f"{taps.SKIP}{i}": tuple(skip.shape[1:]) for i, skip in enumerate(skips)}
    return shapes | {taps.SKIP_MID: tuple(middle.shape[1:])}
