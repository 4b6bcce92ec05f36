"""Flux for editing (Black Forest Labs 2024 and 2025, arXiv 2506.15742): Kontext and Fill, by FluxTransformer2DModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.flux import Flux
from ragaf_exp.models.backbones.pretrained_transformer import SeesImageTokens, pack, positions, unpack
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import PRETRAINED


class FluxKontext(SeesImageTokens, Flux):
    """The transformer of Flux.1 Kontext, which sees the tokens of the edited image behind those of x_t.

    Arguments as in `Flux`. Without an edited image it is called as `Flux`, like the pipeline.
    """

    pipeline = "FluxKontextPipeline"

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
        size = (x_t.shape[2] // self.stride, x_t.shape[3] // self.stride)
        images = x_t.split(self.channels, dim=1)
        tokens = torch.cat([pack(image, self.stride) for image in images], dim=1)
        at = [positions(size, x_t.device, frame) for frame in range(len(images))]
        velocity = self.velocity(tokens, torch.cat(at), t, text, residuals)
        return unpack(velocity[:, : len(at[0])], size, self.stride)


class FluxFill(Flux):
    """The transformer of Flux.1 Fill, whose tokens hold x_t, the image without the hole's pixels, and the hole.

    Args:
        channels: C, latent channels (wiring).
        patch: Image pixels per latent pixel (wiring).
        text_width: D, channels of the text tokens (wiring).
        pooled_width: P, channels of the pooled text (wiring).
        base_storage: Storage of the linear layers of the blocks: float32, bfloat16, float8, int8 or nf4 (wiring).
        source: A folder or hub id with a subfolder transformer/.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses the published model's config.
        every: Number of blocks per injection point.
        guidance: Guidance scale that the network takes as an input, in training and sampling. sampler.guidance is true
            classifier-free guidance.

    Raises:
        UserError: The source is missing or damaged, is of another family, or does not fit the codec or the text encoder.
    """

    reads_source = needs_source = True
    pipeline = "FluxFillPipeline"
    builtin = {"guidance_embeds": True, "in_channels": 384, "out_channels": 64}

    def __init__(
        self, channels: int, patch: int, text_width: int, pooled_width: int, base_storage: str, source: str = "",
        revision: str = "", offline: bool = False, variant: str = "", weights: str = PRETRAINED, every: limits.Layers = 1,
        guidance: limits.Guidance = 30.0,
    ):  # fmt: skip
        self.patch = patch
        super().__init__(
            channels, text_width, pooled_width, base_storage, source, revision, offline, variant, weights, every, guidance
        )

    @classmethod
    def check_config(cls, config: Mapping[str, Any], key: str) -> None:
        """Raise UserError if the transformer has no input for the hole. key: config key of the source."""
        taken, predicted = config.get("in_channels"), config.get("out_channels")
        if not predicted or taken <= 2 * predicted:
            raise UserError(f"{key}: its transformer takes {taken} channels per token, and no hole as Flux Fill does; "
                            "take backbone=flux or flux_kontext, or a folder of Flux Fill")  # fmt: skip

    def needs(self) -> dict[str, int]:
        """Return latent channels, and the widths of text tokens and pooled text, that the network was built for."""
        cells = self.net.config.in_channels // self.stride**2
        return super().needs() | {"channels": (cells - self.patch**2) // 2}

    def encode_source(self, image: Tensor, hole: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode the image with grey in the hole, and the hole at full resolution, as the pipeline does.

        Args:
            image: (B,3,H,W) in [-1,1].
            hole: (B,1,H,W), above 0 = pixels that may change.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w), without gradients.

        Returns:
            (B,C+P,h,w) with P pixels of the hole per latent pixel.
        """
        inside = (hole > 0).to(image.dtype)
        latent = encode(image * (1 - inside))
        return torch.cat([latent, F.pixel_unshuffle(inside, self.patch).to(latent.dtype)], dim=1)
