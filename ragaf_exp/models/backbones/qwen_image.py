"""Qwen-Image (arXiv 2508.02324), by diffusers' QwenImageTransformer2DModel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from ragaf_exp.models.backbones.controlnets.qwen_image import QwenImageControl
from ragaf_exp.models.backbones.pretrained_transformer import (
    TIMESTEPS,
    PretrainedTransformer,
    SeesImageTokens,
    pack,
    unpack,
)
from ragaf_exp.models.conditioning import Text


class QwenImage(PretrainedTransformer):
    """The transformer of Qwen-Image; arguments as in `PretrainedTransformer`."""

    kind = QwenImageTransformer2DModel
    pipeline = "QwenImagePipeline"
    control = QwenImageControl
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

    def predict(self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor]) -> Tensor:
        """Call the network as the pipeline does.

        Args:
            x_t: Noised latents, followed by those of the edited image if there is one, (B,C,h,w) or (B,2C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), of which those of a ControlNet are used.

        Returns:
            The velocity, (B,C,h,w).
        """
        size, images = (x_t.shape[2] // self.stride, x_t.shape[3] // self.stride), x_t.split(self.channels, dim=1)
        tokens = torch.cat([pack(image, self.stride) for image in images], dim=1)
        sizes, (words, mask) = [[(1, *size)] * len(images)] * len(x_t), text.trimmed().after_image()
        control = self.control.arguments(residuals, tokens.shape[1])
        velocity = self.net(tokens, words, mask, t / TIMESTEPS, sizes, **control, return_dict=False)[0]
        return unpack(velocity[:, : size[0] * size[1]], size, self.stride)


class QwenImageEdit(SeesImageTokens, QwenImage):
    """The transformer of Qwen-Image-Edit, which sees the tokens of the edited image behind those of x_t.

    Arguments as in `PretrainedTransformer`.
    """

    needs_source = True
    pipeline = "QwenImageEditPipeline"


class QwenImageEditPlus(QwenImageEdit):
    """The transformer of Qwen-Image-Edit-2509 and 2511 with one edited image; arguments as in `PretrainedTransformer`."""

    pipeline = "QwenImageEditPlusPipeline"
