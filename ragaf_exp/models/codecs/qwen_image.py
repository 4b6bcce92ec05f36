"""Qwen-Image's autoencoder (config group `codec`), a video codec of diffusers that is applied to single images."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, fingerprint, network


class QwenImageKL(Codec):
    """Qwen-Image's autoencoder. Latents are (z - mean) / deviation per channel, with both from the model's config.

    The network is frozen and computes in float32 at any precision of the run.

    Args:
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses the published model's config.
        subfolder: Subfolder of the source that holds the network; "" = the folder itself.
        slicing: Encode and decode one image at a time.
        tiling: Side in pixels of tiles that are encoded and decoded one by one, 0 = whole images.

    Raises:
        UserError: The source is missing or damaged, or tiling does not fit.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, source: str = "", revision: str = "", offline: bool = False, variant: str = "", weights: str = PRETRAINED,
        subfolder: str = "vae", slicing: bool = False, tiling: limits.Tile = 0,
    ):  # fmt: skip
        super().__init__()
        at_least("codec", 0, tiling=tiling)
        origin = Origin("codec", source, revision, offline, variant, weights)
        net: Any = network(AutoencoderKLQwenImage, origin, subfolder, {})[0]
        self.net = net.requires_grad_(False).eval()
        self.training = False
        c = net.config
        if c.latents_mean is None:
            raise UserError(f"{origin.key}: its autoencoder is not Qwen-Image's; take codec=kl16, or codec=kl")
        self.channels, self.downscale = int(c.z_dim), 2 ** len(c.temperal_downsample)
        if tiling % self.downscale:
            raise UserError(f"codec.tiling={tiling}: must be 0 or a multiple of {self.downscale}")
        for name, values in (("mean", c.latents_mean), ("deviation", c.latents_std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        if slicing:
            net.enable_slicing()
        if tiling:
            net.enable_tiling(tiling, tiling, 3 * tiling // 4, 3 * tiling // 4)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines latents."""
        return fingerprint(self.net, type(self).__name__, self.mean.tolist(), self.deviation.tolist())

    def train(self, mode: bool = True) -> QwenImageKL:
        """Leave the codec in evaluation mode."""
        return self

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as float32 latents (B,C,H/downscale,W/downscale), the posterior's mode."""
        with torch.autocast(image.device.type, enabled=False):
            latent = self.net.encode(image.float()[:, :, None]).latent_dist.mode()[:, :, 0]
            return (latent - self.mean) / self.deviation

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B,C,h,w) to images (B,3,h downscale,w downscale), clamped to [-1,1]."""
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float() * self.deviation + self.mean
            return self.net.decode(latent[:, :, None]).sample[:, :, 0].clamp(-1, 1)
