"""The ControlNet of diffusers as a sketch encoder (config group `hint`): Zhang et al. 2023, arXiv 2302.05543."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.backbones.controlnets.base import Control, Copied
from ragaf_exp.models.codecs.base import Codec, SharedCodec
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.control.base import Hint
from ragaf_exp.models.loading.hub import Origin, file_source, network, read_config
from ragaf_exp.models.loading.single_file import is_single_file, load_into


class ControlNetHint(Hint):
    """A trainable copy of a UNet's encoder, or of a pretrained transformer's blocks, whose outputs are added there.

    The residuals of a dropped sketch are zero, which leaves the backbone unchanged.

    Args:
        backbone: The denoiser (wiring).
        side: Height and width of the latents (wiring).
        downscale: Image pixels per latent pixel (wiring).
        codec: The codec (wiring).
        source: A folder, single file or hub id of a trained ControlNet; "" = start as a copy of the backbone.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        channels: Widths of the sketch embedding of a UNet's. Each level after the first halves the resolution.
        layers: Number of copied blocks of a transformer, 0 = a quarter of them.
        single_layers: Number of copied single blocks of Flux, 0 = a quarter of them.

    Raises:
        UserError: The source is missing or damaged, or does not fit the backbone, or the backbone has no ControlNet.
    """

    def __init__(
        self, backbone: Backbone, side: int, downscale: int, codec: Codec, source: str = "", revision: str = "",
        offline: bool = False, variant: str = "", channels: limits.Widths = (16, 32, 96, 256),
        layers: limits.CopiedLayers = 0, single_layers: limits.CopiedLayers = 0,
    ):  # fmt: skip
        super().__init__()
        self.control, self.shared = control_of(backbone), SharedCodec(codec)
        copied = Copied(channels, layers, single_layers)
        key = f"hint.source={source}" if source else "hint"
        if is_single_file(source):
            self.net, self.source = self.control.copied(copied, downscale), file_source(source)
            load_into(self.net, Path(source).expanduser(), key)
        elif source:
            origin = Origin("hint", source, revision, offline, variant)
            check_class(origin, self.control.kind)
            self.net, self.source = network(self.control.kind, origin, "", {})
        else:
            self.net = self.control.copied(copied, downscale)
        self.control.check(self.net, key, (codec.channels, side, side), downscale)
        self.net = self.control.prepare(self.net)
        self.uses_codec, self.width = self.control.reads_latents, self.control.width(self.net, self.shared)

    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks that are compiled and sharded one by one."""
        return self.control.blocks(self.net)

    def features(self, sketch: Tensor) -> dict[tuple[int, int], Tensor]:
        """Encode a sketch (B,1,H,W) in [0,1]; returns the latent's resolution (h,w) -> features (B,width,h,w)."""
        encoded = self.control.encode(self.net, sketch.expand(-1, 3, -1, -1), self.shared)
        return {(encoded.shape[2], encoded.shape[3]): encoded}

    def forward(self, features: dict[tuple[int, int], Tensor], keep: Tensor) -> dict[str, Tensor]:
        """Return the inputs of `at` that do not depend on the timestep. keep (B,) bool: False drops the sketch."""
        (encoded,) = features.values()
        return {"encoded": encoded, "keep": keep}

    def at(self, given: dict[str, Tensor], x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Compute the residuals of the UNet's skip connections and mid block, or of a transformer's tokens.

        Args:
            given: Output of forward.
            x: Input of the backbone's first layer, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual: (B,C',h',w'), or (B,L,C') of tokens outside of the image.
        """
        residuals, keep = self.control.residuals(self.net, given["encoded"], x, t, text), given["keep"]
        return {point: residual * keep.view(-1, *[1] * (residual.ndim - 1)) for point, residual in residuals.items()}


def control_of(backbone: Backbone) -> Control:
    """Return the ControlNet of a backbone. Raises UserError if diffusers has none."""
    if backbone.control is None:
        raise UserError(f"hint=controlnet: diffusers has no ControlNet for a {type(backbone).__name__}; set hint=lite, "
                        "lite_zero or tokens")  # fmt: skip
    return backbone.control(backbone)


def check_class(origin: Origin, kind: type) -> None:
    """Raise UserError if a source holds a network of another class than `kind`."""
    name = read_config(origin, "").get("_class_name", kind.__name__)
    if name != kind.__name__:
        raise UserError(f"{origin.key}: is a {name}, and this backbone takes a {kind.__name__}; use a ControlNet made for "
                        "this backbone")  # fmt: skip
