"""The interface of hint encoders, which compute a residual per injection point."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.unet_backbone import UNetBackbone
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule


class Hint(PretrainedModule):
    """Base class of hint encoders. The hint is a sketch, unless the task replaces it by another image.

    Attributes:
        width: Channels of the features at the latent's resolution.
        net: The network of diffusers, for encoders that wrap one.
        uses_codec: Whether training steps encode the hint by the codec.
    """

    uses_codec: bool = False

    width: int
    net: Any

    def features(self, sketch: Tensor) -> dict:
        """Encode a sketch (B,1,H,W) in [0,1].

        Returns:
            Resolution (h,w) or injection point -> features. They include (B,width,h,w) at the latent's resolution.
        """
        raise NotImplementedError

    def resolutions(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the resolutions (h,w) of the features that regions pool, from fine to coarse.

        height and width are those of the latents.
        """
        return [(height, width)]

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks that are compiled and sharded one by one, but for those of `COMPILED`."""
        return []

    def widen(self, channels: int) -> None:
        """Accept images of this many channels instead of sketches.

        Raises:
            UserError: The encoder accepts sketches only.
        """
        raise UserError(f"hint: {type(self).__name__} accepts a sketch only, but this task's hint has {channels} channels; "
                        "set hint=lite")  # fmt: skip

    def at(self, given: dict[str, Tensor], x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Compute the residuals at a timestep. For most encoders they do not depend on it.

        Args:
            given: Output of forward.
            x: Input of the UNet's first layer, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual: (B,C',h',w'), or (B,L,C') of tokens outside of the image.
        """
        return given


def require_unet(backbone: Backbone, hint: str) -> UNetBackbone:
    """Return the backbone if it is a UNet. hint: the option that requires one, for the message.

    Raises:
        UserError: The backbone is not a UNet.
    """
    if not isinstance(backbone, UNetBackbone):
        raise UserError(f"hint={hint}: needs a UNet, but the backbone is a {type(backbone).__name__}; set hint=lite")
    return backbone
