"""The ControlNet of UNets (Zhang et al. 2023, arXiv 2302.05543), by diffusers' ControlNetModel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from torch import Tensor

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.attention import BiasedAttention
from ragaf_exp.models.backbones.controlnets.base import Control, Copied
from ragaf_exp.models.backbones.points import Shape, check_residual_shapes
from ragaf_exp.models.codecs.base import SharedCodec
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.empty import on_meta


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

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, text_bias=None, appended=None
    ) -> Tensor:
        return super().__call__(attn, hidden_states, encoder_hidden_states, text_bias)


class UNetControl(Control):
    """A copy of a UNet's encoder, whose outputs are added to the skip connections and the mid block."""

    kind = ControlNetModel
    reads_latents = False

    def copied(self, options: Copied, downscale: int) -> ControlNetModel:
        """Build a ControlNet as a copy of the UNet's encoder.

        Args:
            options: What is copied.
            downscale: Image pixels per latent pixel.

        Returns:
            The network; without weights on the meta device.

        Raises:
            UserError: The options do not fit the UNet.
        """
        channels = options.channels
        if any(c < 1 for c in channels) or 2 ** (len(channels) - 1) != downscale:
            raise UserError(f"hint.channels={list(channels)}: halves the image {max(0, len(channels) - 1)} times, but the "
                            f"codec's latents are 1/{downscale} of it; give log2({downscale}) + 1 numbers")  # fmt: skip
        if options.layers or options.single_layers:
            raise UserError(f"hint.layers={options.layers or options.single_layers}: counts the copied blocks of a "
                            "transformer, and a UNet's encoder is copied whole; set hint.layers=0")  # fmt: skip
        return ControlNetModel.from_unet(
            self.backbone.unet, conditioning_embedding_out_channels=tuple(channels), load_weights_from_unet=not on_meta()
        )

    def check(self, net: ControlNetModel, key: str, shape: Shape, downscale: int) -> None:
        """Check that the residuals have the shapes of the UNet's skip connections.

        Args:
            net: The network.
            key: Config key and value of its source, for messages.
            shape: (C,h,w) of the latents.
            downscale: Image pixels per latent pixel.

        Raises:
            UserError: It does not fit.
        """
        taken = self.backbone.skip_shapes(*shape[1:])
        check_residual_shapes(key, "skip", _trace(net, shape[1:], downscale), taken)

    def prepare(self, net: ControlNetModel) -> ControlNetModel:
        """Split the embedding of the sketch in two, and let attention take the text's mask."""
        net.controlnet_cond_embedding.__class__ = Embedding
        names = list(net.attn_processors)
        net.set_attn_processor({n: TextMasked(0 if ".attn2." in n else None) for n in names})
        return net

    def width(self, net: Any, codec: SharedCodec) -> int:
        """Return the channels of the first half of the embedding."""
        return net.config.conditioning_embedding_out_channels[-1]

    def encode(self, net: Any, sketch: Tensor, codec: SharedCodec) -> Tensor:
        """Encode a sketch by the first half of the embedding.

        Args:
            net: The network.
            sketch: (B,3,H,W) in [0,1].
            codec: Not used.

        Returns:
            (B,width,h,w), at the latent's resolution.
        """
        return net.controlnet_cond_embedding.hidden(sketch)

    def residuals(self, net: Any, encoded: Tensor, x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Compute the residuals of the UNet's skip connections and mid block.

        Args:
            net: The network.
            encoded: The encoded sketch, (B,width,h,w).
            x: Input of the UNet's first layer, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual (B,C',h',w').
        """
        visible = text.mask if text.attended is None else text.attended
        bias = torch.zeros_like(visible, dtype=x.dtype).masked_fill(~visible, MASK_VALUE)[:, None]  # (B,1,T)
        skips, middle = net(
            x[:, : net.config.in_channels], t, text.tokens, encoded, cross_attention_kwargs={"text_bias": bias},
            return_dict=False,
        )  # fmt: skip
        return {f"{taps.SKIP}{i}": skip for i, skip in enumerate(skips)} | {taps.SKIP_MID: middle}


def _trace(net: ControlNetModel, size: tuple[int, ...], downscale: int) -> dict[str, Shape]:
    """Compute the residuals' shapes on the meta device. size: height and width of the latents."""
    c: Any = net.config
    with torch.device("meta"), torch.no_grad():
        ghost = ControlNetModel.from_config(c)
        skips, middle = ghost(
            torch.empty(1, c.in_channels, *size), torch.zeros(1), torch.empty(1, 1, c.cross_attention_dim),
            torch.empty(1, c.conditioning_channels, *(downscale * side for side in size)), return_dict=False,
        )  # fmt: skip
    shapes = {f"{taps.SKIP}{i}": tuple(skip.shape[1:]) for i, skip in enumerate(skips)}
    return shapes | {taps.SKIP_MID: tuple(middle.shape[1:])}
