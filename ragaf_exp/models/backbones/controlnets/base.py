"""The interface by which hint=controlnet builds and calls the ControlNet of a family of backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.codecs.base import SharedCodec
from ragaf_exp.models.conditioning import Text


@dataclass(frozen=True)
class Copied:
    """Options of a ControlNet that starts as a copy of the backbone.

    channels: widths of a UNet's embedding of the sketch. layers, single_layers: numbers of copied blocks of a
    transformer, 0 = a quarter of them.
    """

    channels: Sequence[int]
    layers: int = 0
    single_layers: int = 0


class Control(ABC):
    """The ControlNet of a backbone.

    Attributes:
        kind: Its class in diffusers.
        reads_latents: The codec encodes the sketch; otherwise the network embeds it itself.

    Args:
        backbone: The backbone. A copy of the model has a reference to its own backbone.
    """

    kind: ClassVar[Any]
    reads_latents: ClassVar[bool]

    def __init__(self, backbone: Any):
        self.backbone = backbone

    @abstractmethod
    def copied(self, options: Copied, downscale: int) -> Any:
        """Build a ControlNet as a copy of the backbone whose outputs are zero.

        Args:
            options: What is copied.
            downscale: Image pixels per latent pixel.

        Returns:
            The network; without weights on the meta device.

        Raises:
            UserError: The options do not fit the backbone.
        """

    @abstractmethod
    def check(self, net: Any, key: str, shape: Shape, downscale: int) -> None:
        """Check that a ControlNet fits the backbone.

        Args:
            net: The network.
            key: Config key and value of its source, for messages.
            shape: (C,h,w) of the latents.
            downscale: Image pixels per latent pixel.

        Raises:
            UserError: It does not fit.
        """

    def prepare(self, net: Any) -> Any:
        """Change what the network must do differently here, but not its weights and their names; returns it."""
        return net

    def blocks(self, net: Any) -> list[nn.Module]:
        """Return the repeated blocks of the network that are compiled and sharded one by one."""
        return []

    @abstractmethod
    def width(self, net: Any, codec: SharedCodec) -> int:
        """Return the channels of the encoded sketch."""

    @abstractmethod
    def encode(self, net: Any, sketch: Tensor, codec: SharedCodec) -> Tensor:
        """Encode what does not depend on the timestep.

        Args:
            net: The network.
            sketch: (B,3,H,W) in [0,1].
            codec: The codec.

        Returns:
            (B,width,h,w), at the latent's resolution.
        """

    @abstractmethod
    def residuals(self, net: Any, encoded: Tensor, x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Call the network as the family's pipeline does.

        Args:
            net: The network.
            encoded: The encoded sketch, (B,width,h,w).
            x: Input of the backbone's first layer, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual: (B,C',h',w'), or (B,L,C') of tokens outside of the image.
        """
