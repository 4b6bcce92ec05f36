"""Pretrained codecs (config group `codec`): diffusers' AutoencoderTiny (TAESD) and AutoencoderKL."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.tensors import read_tensors
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.loading.empty import on_meta
from ragaf_exp.models.loading.hub import PRETRAINED, RANDOM, Origin, fingerprint, network

PARTS = ("encoder", "decoder")
SD_VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "scaling_factor": 0.18215,
}  # fmt: skip


class PretrainedAutoencoder(Codec):
    """Base class of the pretrained codecs. Latents are (z - shift) x scale, with both numbers from the model's config.

    The network is frozen and computes in float32 at any precision of the run, so that latents are always the same.

    Args:
        net: An autoencoder of diffusers.
        slicing: Encode and decode one image at a time.
        tiling: Side in pixels of tiles that are encoded and decoded one by one, 0 = whole images.

    Raises:
        UserError: tiling is not a multiple of the downscaling factor.
    """

    net: Any
    patch: ClassVar[int] = 1  # side in cells of the network of what is one cell of a latent

    def __init__(self, net: Any, slicing: bool, tiling: int):
        super().__init__()
        at_least("codec", 0, tiling=tiling)
        self.net = net.requires_grad_(False).eval()
        self.training = False
        c = net.config
        scale = 2 ** (len(c.get("encoder_block_out_channels", c.block_out_channels)) - 1)
        self.channels, self.downscale = int(c.latent_channels) * self.patch**2, scale * self.patch
        if tiling % self.downscale:
            raise UserError(f"codec.tiling={tiling}: must be 0 or a multiple of {self.downscale}")
        self.scale, self.shift = float(c.get("scaling_factor", 1.0)), float(c.get("shift_factor") or 0.0)
        if slicing:
            net.enable_slicing()
        if tiling:
            net.enable_tiling()
            net.tile_sample_min_size, net.tile_latent_min_size = tiling, tiling // scale

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines latents."""
        return fingerprint(self.net, type(self).__name__, self.scale, self.shift)

    def train(self, mode: bool = True) -> PretrainedAutoencoder:
        """Leave the codec in evaluation mode."""
        return self

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as float32 latents (B,C,H/downscale,W/downscale).

        Encoding is deterministic: it takes the mode of the posterior and does not sample.
        """
        with torch.autocast(image.device.type, enabled=False):
            return (self._encode(image.float()) - self.shift) * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B,C,h,w) to images (B,3,h downscale,w downscale), clamped to [-1,1]."""
        with torch.autocast(latent.device.type, enabled=False):
            return self.net.decode(latent.float() / self.scale + self.shift).sample.clamp(-1, 1)

    def _encode(self, image: Tensor) -> Tensor:
        raise NotImplementedError


class Taesd(PretrainedAutoencoder):
    """TAESD, a distilled autoencoder of 2.4 million parameters for Stable Diffusion's latents.

    madebyollin/taesd has the latents of Stable Diffusion 1.x and 2.x, madebyollin/taesdxl those of XL.

    Args:
        source: A folder or hub id in diffusers' layout, or a folder with taesd_encoder.safetensors and
            taesd_decoder.safetensors.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights.
        slicing: Encode and decode one image at a time.
        tiling: Side in pixels of tiles that are encoded and decoded one by one, 0 = whole images.

    Raises:
        UserError: The source is missing or damaged, or tiling does not fit.
    """

    def __init__(
        self, source: str = "madebyollin/taesd", revision: str = "", offline: bool = False, variant: str = "",
        weights: str = PRETRAINED, slicing: bool = False, tiling: limits.Tile = 0,
    ):  # fmt: skip
        at_least("codec", 0, tiling=tiling)
        origin = Origin("codec", source, revision, offline, variant, weights)
        folder = Path(source).expanduser()
        if weights == RANDOM:
            net = AutoencoderTiny()
        elif source and all(original(folder, part).is_file() for part in PARTS):
            net = from_original(folder, origin)
        else:
            net, _ = network(AutoencoderTiny, origin, "", {})
        super().__init__(net, slicing, tiling)
        net.spatial_scale_factor = self.downscale  # diffusers sets it to an unrelated number that happens to be 3

    def _encode(self, image: Tensor) -> Tensor:
        return self.net.encode(image).latents


def original(folder: Path, part: str) -> Path:
    """Return the file name of the encoder or decoder as TAESD's authors publish it."""
    return folder / f"taesd_{part}.safetensors"


def from_original(folder: Path, origin: Origin) -> AutoencoderTiny:
    """Load the authors' files into the network of diffusers. Their decoder counts its clamp as a layer."""
    net = AutoencoderTiny()
    if on_meta():
        return net
    state: dict[str, Tensor] = {}
    for part, offset in zip(PARTS, (0, 1), strict=True):
        for name, value in read_tensors(original(folder, part), "codec.source").items():
            layer, _, rest = name.partition(".")
            state[f"{part}.layers.{int(layer) - offset if layer.isdigit() else layer}.{rest}"] = value
    try:
        net.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        raise UserError(f"{origin.key}: its taesd_*.safetensors do not fit TAESD; fetch them again") from error
    return net


class KL(PretrainedAutoencoder):
    """Stable Diffusion's autoencoder.

    Args:
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses Stable Diffusion 1.5's config.
        subfolder: Subfolder of the source that holds the network; "" = the folder itself.
        slicing: Encode and decode one image at a time.
        tiling: Side in pixels of tiles that are encoded and decoded one by one, 0 = whole images.

    Raises:
        UserError: The source is missing or damaged, or tiling does not fit.
    """

    kind: ClassVar[Any] = AutoencoderKL
    builtin: ClassVar[dict[str, Any]] = SD_VAE

    def __init__(
        self, source: str = "", revision: str = "", offline: bool = False, variant: str = "",
        weights: str = PRETRAINED, subfolder: str = "vae", slicing: bool = False, tiling: limits.Tile = 0,
    ):  # fmt: skip
        origin = Origin("codec", source, revision, offline, variant, weights)
        net, _ = network(self.kind, origin, subfolder, self.builtin)
        super().__init__(net, slicing, tiling)

    def _encode(self, image: Tensor) -> Tensor:
        return self.net.encode(image).latent_dist.mode()


class KL16(KL):
    """The autoencoder of Stable Diffusion 3, Flux and Z-Image, with 16 latent channels; arguments as in `KL`."""

    builtin = {**SD_VAE, "latent_channels": 16, "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159,
               "use_quant_conv": False, "use_post_quant_conv": False}  # fmt: skip
