"""A T2I-Adapter as sketch encoder (config group `hint`): Mou et al. 2023, arXiv 2302.08453; diffusers' own network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import T2IAdapter
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape
from ragaf_exp.models.control.base import Hint, check_residual_shapes, require_unet
from ragaf_exp.models.loading.hub import Origin, network

STRIDE = {"full_adapter": 1, "full_adapter_xl": 2, "light_adapter": 1}  # latent pixels per pixel of the first output


class T2IHint(Hint):
    """An encoder of its own, one output per level of the UNet's encoder, the same at every timestep.

    backbone, side: of the latents, downscale: image pixels per latent pixel (wiring). source, revision, offline,
    variant: of a trained adapter, as in the group `backbone`; without a source it has the UNet's widths and random
    weights. layers: residual blocks per level. kind: full_adapter or light_adapter; full_adapter_xl for a UNet whose
    first level, as Stable Diffusion XL's and the embedded one's, has no attention.
    """

    def __init__(
        self, backbone: Backbone, side: int, downscale: int, source: str = "", revision: str = "",
        offline: bool = False, variant: str = "", layers: limits.Blocks = 2, kind: str = "full_adapter",
    ):  # fmt: skip
        super().__init__()
        unet = require_unet(backbone, "t2i")
        at_least("hint", 1, layers=layers)
        if kind not in STRIDE:
            raise UserError(f"hint.kind={kind}: must be one of {', '.join(STRIDE)}")
        if source:
            self.net, self.source = network(T2IAdapter, Origin("hint", source, revision, offline, variant), "", {})
        else:
            widths = unet.level_widths
            self.net = T2IAdapter(  # by name: diffusers forgets what is given by place
                in_channels=1, channels=widths, num_res_blocks=layers, downscale_factor=STRIDE[kind] * downscale,
                adapter_type=kind,
            )  # fmt: skip
        c = self.net.config
        self.stride = STRIDE[c.adapter_type]
        if c.downscale_factor != self.stride * downscale:
            raise UserError(f"hint.source={source}: reads 1/{c.downscale_factor} of an image's resolution, and a "
                            f"{c.adapter_type} of the codec's latents reads 1/{self.stride * downscale}")  # fmt: skip
        key, given = f"hint.source={source}" if source else "hint", _trace(self.net, side * downscale)
        self.points = check_residual_shapes(key, "intra", given, unet.intra_shapes(side, side))
        self.width = c.channels[0]

    def features(self, sketch: Tensor) -> dict:
        """(B,1,H,W) in [0,1] -> injection point -> (B,C,h',w'), and the first also by the latent's resolution."""
        found = self.net(sketch.expand(-1, self.net.config.in_channels, -1, -1))
        fine = F.interpolate(found[0], scale_factor=self.stride) if self.stride > 1 else found[0]
        return {tuple(fine.shape[2:]): fine, **dict(zip(self.points, found, strict=True))}

    def forward(self, features: dict, keep: Tensor) -> dict[str, Tensor]:
        return {point: features[point] * keep[:, None, None, None] for point in self.points}


def _trace(net: T2IAdapter, side: int) -> dict[str, Shape]:
    with torch.device("meta"), torch.no_grad():
        ghost = T2IAdapter.from_config(net.config)
        found = ghost(torch.empty(1, net.config.in_channels, side, side))
    return {f"{taps.INTRA}{i}": tuple(x.shape[1:]) for i, x in enumerate(found)}
