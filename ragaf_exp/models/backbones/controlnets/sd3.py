"""The ControlNet of Stable Diffusion 3 and 3.5, by diffusers' SD3ControlNetModel."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import SD3ControlNetModel
from torch import Tensor

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.controlnets.transformer import POINT, TransformerControl, as_maps
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.codecs.base import SharedCodec
from ragaf_exp.models.conditioning import Text


class SD3Control(TransformerControl):
    """Copies of Stable Diffusion 3's blocks. It is called as StableDiffusion3ControlNetPipeline calls it.

    With force_zeros_for_pooled_projection, diffusers' default, the pooled text is zero and the sketch's latents are not
    shifted. The ControlNets of Stable Diffusion 3.5 large take tokens that the transformer has embedded, and no text.
    """

    kind = SD3ControlNetModel
    samples = {POINT: "block_controlnet_hidden_states"}

    def needs(self, net: Any) -> dict[str, Any]:
        """Return the settings that a ControlNet must have."""
        c = self.backbone.net.config
        same = ["in_channels", "patch_size", "num_attention_heads", "attention_head_dim", "pooled_projection_dim"]
        if net.config.joint_attention_dim is not None:
            same += ["joint_attention_dim", "caption_projection_dim"]
        return {key: c[key] for key in same} | {"extra_conditioning_channels": 0}

    def check(self, net: Any, key: str, shape: Shape, downscale: int) -> None:
        """Check that a ControlNet has the transformer's widths, and positions for the latents.

        Args:
            net: The network.
            key: Config key and value of its source, for messages.
            shape: (C,h,w) of the latents.
            downscale: Image pixels per latent pixel.

        Raises:
            UserError: It does not fit.
        """
        super().check(net, key, shape, downscale)
        largest = net.config.pos_embed_max_size * self.backbone.stride
        if net.config.use_pos_embed and max(shape[1:]) > largest:
            raise UserError(f"{key}: has positions for {largest} rows and columns of latents, but those of data.size have "
                            f"{max(shape[1:])}; set data.size to at most {largest * downscale}")  # fmt: skip

    def encode(self, net: Any, sketch: Tensor, codec: SharedCodec) -> Tensor:
        """Encode a sketch by the codec.

        Args:
            net: The network.
            sketch: (B,3,H,W) in [0,1].
            codec: The codec.

        Returns:
            Its latents (B,C,h,w).
        """
        latent = super().encode(net, sketch, codec)
        unshifted = net.config.force_zeros_for_pooled_projection
        return latent + codec.codec.shift * codec.codec.scale if unshifted else latent

    def residuals(self, net: Any, encoded: Tensor, x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Call the network as the pipeline does.

        Args:
            net: The network.
            encoded: The sketch's latents, (B,C,h,w).
            x: x_t, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual (B,width,h',w').
        """
        assert text.pooled is not None, "this family's text has a pooled vector"
        pooled = torch.zeros_like(text.pooled) if net.config.force_zeros_for_pooled_projection else text.pooled
        (samples,) = net(
            x if net.config.use_pos_embed else self.backbone.net.pos_embed(x), encoded,
            encoder_hidden_states=None if net.context_embedder is None else text.tokens, pooled_projections=pooled,
            timestep=t, return_dict=False,
        )  # fmt: skip
        return as_maps(POINT, samples, self.grid(x))
