"""Flux (Black Forest Labs 2024), by diffusers' FluxTransformer2DModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.controlnets.flux import FluxControl
from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS, PretrainedTransformer, pack, positions, unpack
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import PRETRAINED


class Flux(PretrainedTransformer):
    """The transformer of Flux.

    Args:
        channels: C, latent channels (wiring).
        text_width: D, channels of the text tokens (wiring).
        pooled_width: P, channels of the pooled text (wiring).
        base_storage: Storage of the linear layers of the blocks: float32, bfloat16, float8, int8 or nf4 (wiring).
        source: A folder or hub id with a subfolder transformer/.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses the published model's config.
        every: Number of blocks per injection point.
        guidance: Guidance scale that a guidance-distilled network takes as an input, in training and sampling; others
            ignore it. sampler.guidance is true classifier-free guidance.

    Raises:
        UserError: The source is missing or damaged, is of another family, or does not fit the codec or the text encoder.
    """

    kind = FluxTransformer2DModel
    pipeline = "FluxPipeline"
    control = FluxControl
    builtin = {"guidance_embeds": True}  # of Flux.1 dev; the other defaults of the class are its values

    def __init__(
        self, channels: int, text_width: int, pooled_width: int, base_storage: str, source: str = "", revision: str = "",
        offline: bool = False, variant: str = "", weights: str = PRETRAINED, every: limits.Layers = 1,
        guidance: limits.Guidance = 3.5,
    ):  # fmt: skip
        super().__init__(
            channels, text_width, pooled_width, base_storage, source, revision, offline, variant, weights, every
        )
        self.guidance = guidance

    @classmethod
    def check_config(cls, config: Mapping[str, Any], key: str) -> None:
        """Raise UserError if the transformer has further input channels. key: config key of the source."""
        taken, predicted = config.get("in_channels"), config.get("out_channels")
        if predicted and predicted != taken:
            raise UserError(f"{key}: its transformer takes {taken} channels per token and predicts {predicted}; take "
                            "backbone=flux_fill for Flux Fill, or a folder of Flux.1 dev, schnell or Kontext")  # fmt: skip

    @property
    def width(self) -> int:
        return self.net.inner_dim

    def needs(self) -> dict[str, int]:
        c = self.net.config
        return {"channels": c.in_channels // self.stride**2, "text": c.joint_attention_dim,
                "pooled": c.pooled_projection_dim}  # fmt: skip

    def embedder(self) -> nn.Module:
        return self.net.x_embedder

    def blocks(self) -> list[nn.Module]:
        return [*self.net.transformer_blocks, *self.net.single_transformer_blocks]

    def predict(self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor]) -> Tensor:
        """Call the network as the pipeline does.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), of which those of a ControlNet are used.

        Returns:
            The velocity, (B,C,h,w).
        """
        size = (x_t.shape[2] // self.stride, x_t.shape[3] // self.stride)
        tokens, at = pack(x_t, self.stride), positions(size, x_t.device)
        return unpack(self.velocity(tokens, at, t, text, residuals), size, self.stride)

    def velocity(self, tokens: Tensor, at: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor]) -> Tensor:
        """Call the network on packed latents.

        Args:
            tokens: (B,L,channels of a token).
            at: Image, row and column of each token, (L,3).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), of which those of a ControlNet are used.

        Returns:
            The velocity of each token, (B,L,C stride^2).
        """
        scale = torch.full_like(t, self.guidance) if self.net.config.guidance_embeds else None
        words = torch.zeros(text.tokens.shape[1], 3, device=tokens.device)
        control = self.control.arguments(residuals, tokens.shape[1])
        return self.net(
            tokens, text.tokens, text.pooled, t / TIMESTEPS, at, words, scale, **control, return_dict=False
        )[0]  # fmt: skip
