"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206), by diffusers' SD3Transformer2DModel."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import SD3Transformer2DModel
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.controlnets.sd3 import SD3Control
from ragaf_exp.models.backbones.pretrained_transformer import PretrainedTransformer
from ragaf_exp.models.conditioning import Text


class SD3(PretrainedTransformer):
    """The transformer of Stable Diffusion 3 and 3.5; arguments as in `PretrainedTransformer`."""

    kind = SD3Transformer2DModel
    pipeline = "StableDiffusion3Pipeline"
    control = SD3Control
    builtin = {  # of Stable Diffusion 3 medium
        "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
        "pos_embed_max_size": 192,
    }  # fmt: skip

    @property
    def width(self) -> int:
        return self.net.inner_dim

    def needs(self) -> dict[str, int]:
        c = self.net.config
        return {"channels": c.in_channels, "text": c.joint_attention_dim, "pooled": c.pooled_projection_dim}

    def embedder(self) -> nn.Module:
        return self.net.pos_embed

    def blocks(self) -> list[nn.Module]:
        return list(self.net.transformer_blocks)

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError if the table of positions has fewer rows or columns than latents of height x width."""
        largest = self.net.config.pos_embed_max_size * self.stride
        if max(height, width) > largest:
            raise UserError(f"data.size: latents of {height}x{width} exceed the {largest} rows and columns that this "
                            f"transformer has positions for; set data.size to at most {largest} latent cells")  # fmt: skip

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
        control = self.control.arguments(residuals, size[0] * size[1])
        return self.net(x_t, text.tokens, text.pooled, t, **control, return_dict=False)[0]
