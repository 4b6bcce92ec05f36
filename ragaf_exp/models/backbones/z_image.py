"""Z-Image (Alibaba 2025, arXiv 2511.22699), by diffusers' ZImageTransformer2DModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor, nn

from ragaf_exp.models.backbones.controlnets.z_image import ZImageControl, own_tokens
from ragaf_exp.models.backbones.points import Injected
from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS, PretrainedTransformer, change_first
from ragaf_exp.models.conditioning import Text

MULTIPLE = 32  # diffusers pads image and text to multiples of this number of tokens
PATCH = "2-1"  # key of the embedding of 2x2 latent cells of a single frame
ALL = (".attention.",)


class ZImage(PretrainedTransformer):
    """The transformer of Z-Image; arguments as in `PretrainedTransformer`.

    Text and image share all projections, so that memory.attention selects the same layers whatever its value.
    """

    kind = ZImageTransformer2DModel
    pipeline = "ZImagePipeline"
    control = ZImageControl
    builtin = {}  # the defaults of the class are the published model's
    attention_layers = {"all": ALL, "self": ALL, "cross": ALL}

    @property
    def width(self) -> int:
        return self.net.dim

    def needs(self) -> dict[str, int]:
        c = self.net.config
        return {"channels": c.in_channels, "text": c.cap_feat_dim, "pooled": 0}

    def embedder(self) -> nn.Module:
        return self.net.all_x_embedder[PATCH]

    def blocks(self) -> list[nn.Module]:
        return [*self.net.noise_refiner, *self.net.context_refiner, *self.net.layers]

    def tapped(self) -> list[nn.Module]:
        return list(self.net.layers)

    def change_output(self, output: Any, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """Apply `change` to the image tokens in a block's output.

        Args:
            output: Image tokens, padding and text tokens in one sequence.
            count: Number of tokens of the image.
            change: Maps tokens (B,count,width) to tokens of the same shape.

        Returns:
            The changed output.
        """
        return change_first(output, count, change)

    def _after_embedding(self, at: Injected, size: tuple[int, int], module: nn.Module, args: Any, output: Tensor) -> Tensor:
        count = -(-size[0] * size[1] // MULTIPLE) * MULTIPLE  # diffusers pads the sequence of an image
        items = output.unflatten(0, (-1, count))  # (B,count,width)
        return super()._after_embedding(at, size, module, args, items).flatten(0, 1)

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
        images = list(x_t[:, :, None])  # of a single frame each, (C,1,h,w)
        control = self.control.arguments(residuals, 0)
        out = self.net(images, 1 - t / TIMESTEPS, own_tokens(text), **control, return_dict=False)[0]
        return -torch.stack(out)[:, :, 0]
