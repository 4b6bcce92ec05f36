"""The T2I-Adapter of diffusers as a sketch encoder (config group `hint`): Mou et al. 2023, arXiv 2302.08453."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import T2IAdapter
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.points import Shape, check_residual_shapes
from ragaf_exp.models.control.base import Hint, require_unet
from ragaf_exp.models.loading.hub import Origin, file_source, network
from ragaf_exp.models.loading.single_file import is_single_file, load_into

STRIDE = {"full_adapter": 1, "full_adapter_xl": 2, "light_adapter": 1}  # latent pixels per pixel of the first output


class T2IHint(Hint):
    """A separate encoder with one output per level of the UNet's encoder, the same at every timestep.

    Args:
        backbone: The UNet (wiring).
        side: Height and width of the latents (wiring).
        downscale: Image pixels per latent pixel (wiring).
        source: A folder, single file or hub id of a trained adapter; "" = random weights in the UNet's widths.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        layers: Residual blocks per level.
        kind: full_adapter, light_adapter, or full_adapter_xl for a UNet whose first level has no attention, such as
            those of Stable Diffusion XL and backbone=tiny.

    Raises:
        UserError: The source is missing or damaged, or does not fit the backbone.
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
        from_file = is_single_file(source)
        if source and not from_file:
            self.net, self.source = network(T2IAdapter, Origin("hint", source, revision, offline, variant), "", {})
        else:
            widths = unet.level_widths
            self.net = T2IAdapter(  # by keyword: diffusers does not record positional arguments in the config
                in_channels=1, channels=widths, num_res_blocks=layers, downscale_factor=STRIDE[kind] * downscale,
                adapter_type=kind,
            )  # fmt: skip
        if from_file:
            load_into(self.net, Path(source).expanduser(), f"hint.source={source}")
            self.source = file_source(source)
        c = self.net.config
        self.stride = STRIDE[c.adapter_type]
        if c.downscale_factor != self.stride * downscale:
            raise UserError(f"hint.source={source}: downscales images by {c.downscale_factor}, but a {c.adapter_type} for "
                            f"this codec's latents must downscale by {self.stride * downscale}; use an adapter trained for "
                            "this codec")  # fmt: skip
        key, given = f"hint.source={source}" if source else "hint", _trace(self.net, side * downscale)
        self.points = check_residual_shapes(key, "intra", given, unet.intra_shapes(side, side))
        self.width = c.channels[0]

    def features(self, sketch: Tensor) -> dict:
        """Encode a sketch (B,1,H,W) in [0,1].

        Returns:
            Injection point -> features (B,C,h',w'), and the latent's resolution (h,w) -> the first of them at that size.
        """
        levels = self.net(sketch.expand(-1, self.net.config.in_channels, -1, -1))
        fine = F.interpolate(levels[0], scale_factor=self.stride) if self.stride > 1 else levels[0]
        return {tuple(fine.shape[2:]): fine, **dict(zip(self.points, levels, strict=True))}

    def forward(self, features: dict, keep: Tensor) -> dict[str, Tensor]:
        """Return the residual (B,C,h,w) of each injection point. keep (B,) bool: False drops the sketch (zero)."""
        return {point: features[point] * keep[:, None, None, None] for point in self.points}


def _trace(net: T2IAdapter, side: int) -> dict[str, Shape]:
    """Compute the shapes of the adapter's outputs on the meta device."""
    with torch.device("meta"), torch.no_grad():
        ghost = T2IAdapter.from_config(net.config)
        levels = ghost(torch.empty(1, net.config.in_channels, side, side))
    return {f"{taps.INTRA}{i}": tuple(x.shape[1:]) for i, x in enumerate(levels)}
