"""Flux.2 klein (Black Forest Labs 2026), by diffusers' Flux2Transformer2DModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS, PretrainedTransformer, pack, positions, unpack
from ragaf_exp.models.conditioning import Text


class Flux2(PretrainedTransformer):
    """The transformer of Flux.2 klein; arguments as in `PretrainedTransformer`.

    A token is one latent cell. Single blocks have one projection for attention and MLP, which LoRA adapts as well.
    """

    kind = Flux2Transformer2DModel
    pipeline = "Flux2KleinPipeline"
    stride = in_patch = 1
    builtin = {  # of Flux.2 klein 4B
        "num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680,
        "guidance_embeds": False,
    }  # fmt: skip

    @classmethod
    def check_config(cls, config: Mapping[str, Any], key: str) -> None:
        """Raise UserError if the transformer takes a guidance scale. key: config key of the source."""
        if config.get("guidance_embeds", True):
            raise UserError(f"{key}: its transformer takes a guidance scale, as Flux.2 dev's does; give a folder of Flux.2 "
                            "klein")  # fmt: skip

    @property
    def width(self) -> int:
        return self.net.inner_dim

    def needs(self) -> dict[str, int]:
        c = self.net.config
        return {"channels": c.in_channels, "text": c.joint_attention_dim, "pooled": 0}

    def embedder(self) -> nn.Module:
        return self.net.x_embedder

    def blocks(self) -> list[nn.Module]:
        return [*self.net.transformer_blocks, *self.net.single_transformer_blocks]

    def change_output(self, output: Any, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """Apply `change` to the image tokens in a block's output.

        Args:
            output: Text tokens and image tokens, of a single block in one sequence.
            count: Number of tokens of the image.
            change: Maps tokens (B,count,width) to tokens of the same shape.

        Returns:
            The changed output.
        """
        if isinstance(output, tuple):
            return super().change_output(output, count, change)
        return torch.cat([output[:, :-count], change(output[:, -count:])], dim=1)

    def predict(self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor]) -> Tensor:
        """Call the network as the pipeline does.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.
            residuals: Not used: diffusers has no ControlNet of this family.

        Returns:
            The velocity, (B,C,h,w).
        """
        size, count = (x_t.shape[2], x_t.shape[3]), text.tokens.shape[1]
        image = F.pad(positions(size, x_t.device), (0, 1))  # (L,4): frame, row, column, position in the text
        words = F.pad(torch.arange(count, device=x_t.device, dtype=torch.float32)[:, None], (3, 0))
        velocity = self.net(pack(x_t, 1), text.tokens, t / TIMESTEPS, image, words, return_dict=False)[0]
        return unpack(velocity, size, 1)
