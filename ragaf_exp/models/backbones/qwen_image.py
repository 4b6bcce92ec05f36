"""Qwen-Image (arXiv 2508.02324), by diffusers' QwenImageTransformer2DModel."""

from __future__ import annotations

from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS, PretrainedTransformer, pack, unpack
from ragaf_exp.models.conditioning import Text


class QwenImage(PretrainedTransformer):
    """The transformer of Qwen-Image; arguments as in `PretrainedTransformer`."""

    kind = QwenImageTransformer2DModel
    pipeline = "QwenImagePipeline"
    builtin = {}  # the defaults of the class are the published model's

    @property
    def width(self) -> int:
        return self.net.inner_dim

    def needs(self) -> dict[str, int]:
        c = self.net.config
        return {"channels": c.in_channels // self.stride**2, "text": c.joint_attention_dim, "pooled": 0}

    def embedder(self) -> nn.Module:
        return self.net.img_in

    def blocks(self) -> list[nn.Module]:
        return list(self.net.transformer_blocks)

    def predict(self, x_t: Tensor, t: Tensor, text: Text) -> Tensor:
        """Call the network as the pipeline does.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.

        Returns:
            The velocity, (B,C,h,w).
        """
        size, text = (x_t.shape[2] // self.stride, x_t.shape[3] // self.stride), text.trimmed()
        tokens = self.net(
            pack(x_t, self.stride), text.tokens, text.mask, t / TIMESTEPS, [[(1, *size)]] * len(x_t), return_dict=False
        )[0]
        return unpack(tokens, size, self.stride)
