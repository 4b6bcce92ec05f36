"""What every hint encoder provides: residuals per injection point."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.backbones.unet_backbone import UNetBackbone
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule


class Hint(PretrainedModule):
    """What every sketch encoder gives. width: channels of its features at the latent's resolution."""

    width: int
    net: Any  # of diffusers, where it is built on one

    def features(self, sketch: Tensor) -> dict:
        """(B,1,H,W) in [0,1] -> features, among them those at the latent's resolution (h,w): (B,width,h,w)."""
        raise NotImplementedError

    def resolutions(self, height: int, width: int) -> list[tuple[int, int]]:
        """Resolutions (h,w) of the features that regions pool, for latents of height x width: the finest first."""
        return [(height, width)]

    def widen(self, channels: int) -> None:
        """Take images of this many channels instead of sketches. UserError where the encoder takes sketches alone."""
        raise UserError(f"hint: {type(self).__name__} takes a sketch, and this task gives it {channels} channels; "
                        "take hint=lite")  # fmt: skip

    def at(self, given: dict[str, Tensor], x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Residuals by injection point at timesteps t (B,), from what forward gave; most don't depend on these.

        x (B,C,h,w): what the UNet's first layer takes.
        """
        return given


def require_unet(backbone: Backbone, hint: str) -> UNetBackbone:
    """The backbone, where it is a UNet; UserError for another. hint: the option that is made for UNets."""
    if not isinstance(backbone, UNetBackbone):
        raise UserError(f"hint={hint}: made for UNets, and backbone={type(backbone).__name__} is none; take hint=lite")
    return backbone


def check_residual_shapes(key: str, what: str, given: dict[str, Shape], taken: dict[str, Shape]) -> list[str]:
    """The injection points, where an encoder's outputs fit the UNet's; else UserError with the shapes that disagree."""
    if len(given) != len(taken):
        raise UserError(f"{key}: gives {len(given)} {what} outputs, and the backbone takes {len(taken)}")
    for point, shape in given.items():
        if shape != taken.get(point):
            raise UserError(f"{key}: gives {shape} (channels, height, width) at {point}, and the backbone takes "
                            f"{taken.get(point)} there; take another hint, or one made for this backbone")  # fmt: skip
    return list(given)
