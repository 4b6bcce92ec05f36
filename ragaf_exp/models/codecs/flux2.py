"""Flux.2's autoencoder (config group `codec`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLFlux2
from torch import Tensor

from ragaf_exp.models.codecs.autoencoder import KL
from ragaf_exp.models.loading.hub import fingerprint


class Flux2KL(KL):
    """Flux.2's autoencoder; arguments as in `KL`.

    2 x 2 cells with 32 channels are one cell with 128. Latents are (z - mean) / deviation per channel, with the statistics
    of the network's batch normalisation.
    """

    kind = AutoencoderKLFlux2
    builtin = {}  # the defaults of the class are the published model's
    patch = 2

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines latents."""
        return fingerprint(self.net, type(self).__name__, self.patch)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B,3,H,W) in [-1,1] as float32 latents (B,C,H/downscale,W/downscale), the posterior's mode."""
        with torch.autocast(image.device.type, enabled=False):
            mean, deviation = self._statistics()
            return (F.pixel_unshuffle(self._encode(image.float()), self.patch) - mean) / deviation

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B,C,h,w) to images (B,3,h downscale,w downscale), clamped to [-1,1]."""
        with torch.autocast(latent.device.type, enabled=False):
            mean, deviation = self._statistics()
            return self.net.decode(F.pixel_shuffle(latent.float() * deviation + mean, self.patch)).sample.clamp(-1, 1)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, (1,C,1,1)."""
        bn = self.net.bn
        return bn.running_mean.view(1, -1, 1, 1), (bn.running_var + self.net.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
