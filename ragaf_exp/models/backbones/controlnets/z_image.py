"""The ControlNet of Z-Image, by diffusers' ZImageControlNetModel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ZImageControlNetModel
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.controlnets.base import Copied
from ragaf_exp.models.backbones.controlnets.transformer import POINT, TransformerControl
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS
from ragaf_exp.models.conditioning import Text

REST = "control.rest."  # prefix of the residuals of padding and text, which follow the image in Z-Image's sequence
BORROWED = ("t_scale", "t_embedder", "all_x_embedder", "cap_embedder", "rope_embedder", "noise_refiner", "context_refiner")
PADDING = ("x_pad_token", "cap_pad_token")


class ZImageControl(TransformerControl):
    """Copies of some of Z-Image's layers. It is called as ZImageControlNetPipeline calls it.

    Their residuals cover the whole sequence: image, padding and text. The embeddings and refiners of the transformer are
    used as they are, and are no part of the ControlNet.
    """

    kind = ZImageControlNetModel

    def sizes(self, options: Copied) -> dict[str, Any]:
        """Return the settings in which a copy differs from the transformer: evenly spaced layers, from the first."""
        present, count = self.count(), super().sizes(options)["num_layers"]
        return {"control_layers_places": [i * present // count for i in range(count)],
                "control_in_dim": self.backbone.net.config.in_channels}  # fmt: skip

    def count(self) -> int:
        """Return the number of the transformer's layers behind its refiners."""
        return len(self.backbone.net.layers)

    def origin(self, name: str, net: Any) -> str:
        """Return the name in the transformer of the weight that a weight of the ControlNet is a copy of."""
        if name.startswith("control_layers."):
            _, index, rest = name.split(".", 2)
            return f"layers.{net.control_layers_places[int(index)]}.{rest}"
        return name.removeprefix("control_")

    def needs(self, net: Any) -> dict[str, Any]:
        """Return the settings that a ControlNet must have."""
        c = self.backbone.net.config
        return {key: c[key] for key in ("dim", "n_heads", "n_kv_heads", "n_refiner_layers")}

    def check(self, net: Any, key: str, shape: Shape, downscale: int) -> None:
        """Check that a ControlNet has the transformer's widths and adds to layers that it has.

        Args:
            net: The network.
            key: Config key and value of its source, for messages.
            shape: (C,h,w) of the latents.
            downscale: Image pixels per latent pixel.

        Raises:
            UserError: It does not fit.
        """
        super().check(net, key, shape, downscale)
        last, channels = max(net.control_layers_places), net.config.control_in_dim
        if last >= self.count() or channels < shape[0]:
            raise UserError(f"{key}: adds to layer {last} and takes {channels} channels, but this backbone has "
                            f"{self.count()} layers, from 0, and latents of {shape[0]} channels; use a ControlNet made for "
                            "this backbone")  # fmt: skip

    def prepare(self, net: Any) -> Any:
        """Add the switch of gradient checkpointing, which diffusers' class reads in training and does not set."""
        net.gradient_checkpointing = False
        return net

    def blocks(self, net: Any) -> list[nn.Module]:
        return [*net.control_layers, *(net.control_noise_refiner or [])]

    def residuals(self, net: Any, encoded: Tensor, x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Call the network as the pipeline does.

        Args:
            net: The network.
            encoded: The sketch's latents, (B,C,h,w).
            x: x_t, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual (B,width,h',w') of the image, and (B,L,width) of padding and text.
        """
        size = self.grid(x)
        padded = F.pad(encoded, (0, 0, 0, 0, 0, net.config.control_in_dim - encoded.shape[1]))  # inpainting's channels
        with borrowed(net, self.backbone.net, computed_in(x)):
            samples = net(list(x[:, :, None]), 1 - t / TIMESTEPS, own_tokens(text), list(padded[:, :, None]))
        image, count = {}, size[0] * size[1]
        for i, tokens in samples.items():
            image[f"{POINT}{i}"] = tokens[:, :count].transpose(1, 2).unflatten(2, size)
            image[f"{REST}{i}"] = tokens[:, count:]
        return image

    @classmethod
    def arguments(cls, residuals: Mapping[str, Tensor], count: int) -> dict[str, Any]:
        """Return the argument by which the transformer takes the residuals of its ControlNet.

        Args:
            residuals: Injection point -> residual.
            count: Not used.

        Returns:
            Name -> number of the layer -> tokens (B,L,C) of the whole sequence; empty without a ControlNet.
        """
        rest = {int(point.removeprefix(REST)): tokens for point, tokens in residuals.items() if point.startswith(REST)}
        if not rest:
            return {}
        image = {i: residuals[f"{POINT}{i}"].flatten(2).transpose(1, 2) for i in rest}
        return {cls.samples[POINT]: {i: torch.cat([image[i], tokens], dim=1) for i, tokens in rest.items()}}


@contextmanager
def borrowed(net: Any, transformer: Any, dtype: torch.dtype) -> Iterator[None]:
    """Let a ControlNet use the transformer's modules while this is open, without registering them as its own.

    Args:
        net: The ControlNet.
        transformer: The transformer.
        dtype: Of the embedded tokens, among which padding is written.
    """
    vars(net).update({name: getattr(transformer, name) for name in BORROWED})
    vars(net).update({name: getattr(transformer, name).to(dtype) for name in PADDING})
    try:
        yield
    finally:
        vars(net).update(dict.fromkeys((*BORROWED, *PADDING)))


def computed_in(x: Tensor) -> torch.dtype:
    """Return the dtype in which linear layers compute now, for an input x."""
    return F.linear(x.new_zeros(1, 1), x.new_zeros(1, 1)).dtype


def own_tokens(text: Text) -> list[Tensor]:
    """Return the tokens of each caption without padding, B times (T',D); all of them on the meta device."""
    if text.mask.is_meta:
        return list(text.tokens)
    return [tokens[real] for tokens, real in zip(text.tokens, text.mask, strict=True)]
