"""Base class of the ControlNets of pretrained transformers: copied blocks whose outputs are added to the tokens."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.controlnets.base import Control, Copied
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.codecs.base import SharedCodec
from ragaf_exp.models.loading.empty import on_meta
from ragaf_exp.models.stored import StoredLinear

POINT, SINGLE = "control.", "control.single."  # prefixes of injection points; a number follows
SHARE = 4  # a copy has 1/SHARE of the blocks


class TransformerControl(Control):
    """Blocks copied from a transformer, which see x_t and the sketch's latents, white strokes on black.

    The image tokens of a residual are a map (B,C,h,w) over the grid of tokens. With an editing transformer, the
    ControlNet sees x_t without the edited image, whose tokens have no residual.

    Attributes:
        samples: Prefix of injection points -> argument of the transformer that takes these residuals.
    """

    reads_latents = True
    samples: ClassVar[Mapping[str, str]] = {POINT: "controlnet_block_samples"}

    def copied(self, options: Copied, downscale: int) -> Any:
        """Build a ControlNet as a copy of the transformer's first blocks.

        Args:
            options: What is copied.
            downscale: Image pixels per latent pixel.

        Returns:
            The network; without weights on the meta device.

        Raises:
            UserError: The transformer has fewer blocks.
        """
        source = self.backbone.net
        taken = inspect.signature(self.kind.__init__).parameters
        shared = {key: value for key, value in source.config.items() if key in taken}
        net = self.kind.from_config(shared | self.sizes(options))
        if not on_meta():
            self.copy_weights(net)
        return net

    def sizes(self, options: Copied) -> dict[str, Any]:
        """Return the settings in which a copy differs from the transformer."""
        if options.single_layers:
            raise UserError(f"hint.single_layers={options.single_layers}: only Flux has single blocks; "
                            "set hint.single_layers=0")  # fmt: skip
        return {"num_layers": number("layers", options.layers, self.count())}

    def count(self) -> int:
        """Return the number of the transformer's blocks."""
        return len(self.backbone.net.transformer_blocks)

    def origin(self, name: str, net: Any) -> str:
        """Return the name in the transformer of the weight that a weight of the ControlNet is a copy of."""
        return name

    @torch.no_grad()
    def copy_weights(self, net: nn.Module) -> None:
        """Copy the weights that the transformer has too, of its first input channels where the copy has fewer."""
        modules, state = dict(self.backbone.net.named_modules()), self.backbone.net.state_dict()
        for name, value in net.state_dict().items():
            origin = self.origin(name, net)
            parent, _, last = origin.rpartition(".")
            layer = modules.get(parent)
            copied = state.get(origin)
            if isinstance(layer, StoredLinear) and last == "weight":
                copied = layer.plain_weight()
            if copied is not None:
                value.copy_(copied if copied.shape == value.shape else copied[:, : value.shape[1]])

    @abstractmethod
    def needs(self, net: Any) -> dict[str, Any]:
        """Return the settings that a ControlNet must have to fit the transformer."""

    def check(self, net: Any, key: str, shape: Shape, downscale: int) -> None:
        """Check that a ControlNet has the transformer's widths.

        Args:
            net: The network.
            key: Config key and value of its source, for messages.
            shape: (C,h,w) of the latents.
            downscale: Image pixels per latent pixel.

        Raises:
            UserError: It does not fit.
        """
        for name, needed in self.needs(net).items():
            if net.config[name] != needed:
                raise UserError(f"{key}: its {name} is {net.config[name]}, but this backbone needs {needed}; use a "
                                "ControlNet made for this backbone")  # fmt: skip

    def blocks(self, net: Any) -> list[nn.Module]:
        return list(net.transformer_blocks)

    def width(self, net: Any, codec: SharedCodec) -> int:
        """Return the channels of latents."""
        return codec.codec.channels

    def encode(self, net: Any, sketch: Tensor, codec: SharedCodec) -> Tensor:
        """Encode a sketch by the codec.

        Args:
            net: The network.
            sketch: (B,3,H,W) in [0,1].
            codec: The codec.

        Returns:
            Its latents (B,C,h,w).
        """
        return codec.encode(2 * sketch.float() - 1)

    def x_t(self, x: Tensor) -> Tensor:
        """Return the noised latents (B,C,h,w) in the input of the transformer."""
        return x[:, : self.backbone.channels]

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Return height and width of the grid of tokens for latents (B,C,h,w)."""
        return (x.shape[2] // self.backbone.stride, x.shape[3] // self.backbone.stride)

    @classmethod
    def arguments(cls, residuals: Mapping[str, Tensor], count: int) -> dict[str, Any]:
        """Return the arguments by which the transformer takes the residuals of its ControlNet.

        Args:
            residuals: Injection point -> (B,C,h,w).
            count: Number of image tokens; those behind the grid of x_t have no residual.

        Returns:
            Name -> tokens (B,count,C) of each block; empty without a ControlNet.
        """
        named = {argument: as_tokens(prefix, residuals, count) for prefix, argument in cls.samples.items()}
        return {argument: tokens for argument, tokens in named.items() if tokens}


def number(key: str, wanted: int, present: int) -> int:
    """Return the number of blocks to copy.

    Args:
        key: Its key in config group `hint`.
        wanted: Its value, 0 = a quarter.
        present: Number of the transformer's blocks.

    Raises:
        UserError: The transformer has fewer blocks.
    """
    if wanted > present:
        raise UserError(f"hint.{key}={wanted}: the transformer has {present} such blocks to copy; set at most {present}")
    return wanted or -(-present // SHARE)


def as_maps(prefix: str, samples: list[Tensor] | None, size: tuple[int, int]) -> dict[str, Tensor]:
    """Arrange residuals of tokens as maps.

    Args:
        prefix: Prefix of their injection points.
        samples: Residuals (B,h w,C) of each block; None = none.
        size: Height and width of the grid, (h,w).

    Returns:
        Injection point -> (B,C,h,w).
    """
    return {f"{prefix}{i}": tokens.transpose(1, 2).unflatten(2, size) for i, tokens in enumerate(samples or [])}


def as_tokens(prefix: str, residuals: Mapping[str, Tensor], count: int) -> list[Tensor]:
    """Arrange maps as residuals of tokens, the inverse of `as_maps`.

    Args:
        prefix: Prefix of their injection points.
        residuals: Injection point -> (B,C,h,w), of other points too.
        count: Number of tokens; those behind the grid are zero.

    Returns:
        (B,count,C) of each point.
    """
    tokens: list[Tensor] = []
    while (point := f"{prefix}{len(tokens)}") in residuals:
        flat = residuals[point].flatten(2).transpose(1, 2)
        tokens.append(flat if flat.shape[1] == count else F.pad(flat, (0, 0, 0, count - flat.shape[1])))
    return tokens
