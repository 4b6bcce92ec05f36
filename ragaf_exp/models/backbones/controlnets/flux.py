"""The ControlNet of Flux, by diffusers' FluxControlNetModel."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FluxControlNetModel
from torch import Tensor, nn

from ragaf_exp.models.backbones.controlnets.base import Copied
from ragaf_exp.models.backbones.controlnets.transformer import POINT, SINGLE, TransformerControl, as_maps, number
from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS, pack, positions
from ragaf_exp.models.conditioning import Text


class FluxControl(TransformerControl):
    """Copies of Flux's double and single blocks. It is called as FluxControlNetPipeline calls it."""

    kind = FluxControlNetModel
    samples = {POINT: "controlnet_block_samples", SINGLE: "controlnet_single_block_samples"}

    def sizes(self, options: Copied) -> dict[str, Any]:
        """Return the settings in which a copy differs from the transformer."""
        net = self.backbone.net
        return {
            "num_layers": number("layers", options.layers, self.count()),
            "num_single_layers": number("single_layers", options.single_layers, len(net.single_transformer_blocks)),
            "in_channels": self.backbone.channels * self.backbone.stride**2,
        }

    def needs(self, net: Any) -> dict[str, Any]:
        """Return the settings that a ControlNet must have: one that takes latents, and no number of a kind of control."""
        c = self.backbone.net.config
        same = ("num_attention_heads", "attention_head_dim", "joint_attention_dim", "pooled_projection_dim")
        channels = self.backbone.channels * self.backbone.stride**2
        return {key: c[key] for key in same} | {
            "in_channels": channels, "num_mode": None, "conditioning_embedding_channels": None,
        }  # fmt: skip

    def blocks(self, net: Any) -> list[nn.Module]:
        return [*net.transformer_blocks, *net.single_transformer_blocks]

    def residuals(self, net: Any, encoded: Tensor, x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Call the network as the pipeline does.

        Args:
            net: The network.
            encoded: The sketch's latents, (B,C,h,w).
            x: Input of the transformer, which starts with x_t, (B,C',h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual (B,width,h',w').
        """
        size, stride = self.grid(x), self.backbone.stride
        double, single = net(
            pack(self.x_t(x), stride), pack(encoded, stride), encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled, timestep=t / TIMESTEPS, img_ids=positions(size, x.device),
            txt_ids=torch.zeros(text.tokens.shape[1], 3, device=x.device),
            guidance=torch.full_like(t, self.backbone.guidance) if net.config.guidance_embeds else None, return_dict=False,
        )  # fmt: skip
        return as_maps(POINT, double, size) | as_maps(SINGLE, single, size)
