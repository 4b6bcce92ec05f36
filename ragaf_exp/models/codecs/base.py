"""What every codec provides: images to latents and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragaf_exp.core.types import Batch
from ragaf_exp.models.codecs.pixel import Pixel
from ragaf_exp.models.loading.hub import fingerprint


class Codec(nn.Module):
    """channels: of the latents. downscale: image pixels per latent pixel. fingerprint: of all that decides latents."""

    channels: int
    downscale: int

    def blank(self, side: int) -> Tensor:
        """(1,C,h,w), on the CPU: the latent of a grey image of side x side pixels."""
        device = next(self.parameters(), torch.empty(0)).device
        return self.encode(torch.zeros(1, 3, side, side, device=device)).cpu()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self, type(self).__name__, self.channels, self.downscale)


def latent_shape(batch: Batch, codec: Pixel) -> torch.Size:
    """(B,C,h,w) of the batch's latents, before they are there."""
    height, width = (side // codec.downscale for side in batch.image.shape[2:])
    return torch.Size((len(batch), codec.channels, height, width))
