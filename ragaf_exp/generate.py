"""Both stages as one function of a batch: what sampling, validation and evaluation all call."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.models.codec import Pixel
from ragaf_exp.models.conditioning import Conditioning
from ragaf_exp.models.model import Model
from ragaf_exp.randomness import item_noise
from ragaf_exp.sampler import Sampler
from ragaf_exp.training.precision import Compute
from ragaf_exp.types import Batch


@dataclass(frozen=True)
class Generated:
    """Images of one batch."""

    stage1: Tensor | None  # (B,3,H,W) in [-1,1]
    stage2: Tensor | None
    conditioning: Conditioning  # of the last stage that ran

    def drawn(self) -> Drawn:
        stages = (None if x is None else to_uint8(x) for x in (self.stage1, self.stage2))
        regions = self.conditioning.regions
        return Drawn(*stages, None if regions is None else regions.region_text.float().cpu().numpy())


@dataclass(frozen=True)
class Drawn:
    """The same as plain arrays: what is scored, shown and kept. A stage that did not run is None."""

    stage1: np.ndarray | None  # (B,H,W,3) uint8
    stage2: np.ndarray | None
    region_text: np.ndarray | None  # (B,N,T) float32, the regions' attention to the tokens

    @property
    def final(self) -> np.ndarray:
        return self.stage1 if self.stage2 is None else self.stage2


class Pipeline:
    """coarse: stage 1's model, refine: stage 2's; either may be None. strength: where stage 2 takes over, (0,1]."""

    def __init__(
        self, coarse: Model | None, refine: Model | None, codec: Pixel, sampler: Sampler, compute: Compute,
        strength: float, seed: int,
    ):  # fmt: skip
        self.coarse, self.refine, self.codec, self.sampler = coarse, refine, codec, sampler
        self.compute, self.strength, self.seed = compute, strength, seed

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Generated:
        """Noise is a function of (seed, stage, item key): figures depend on no batch size or order."""
        batch = batch.to(self.compute.device)
        shape = tuple(self.codec.encode(batch.image[:1]).shape[1:])
        latent = stage1 = stage2 = conditioning = None
        with self.compute:
            if self.coarse is not None:
                noise = item_noise(self.seed, "coarse", batch.keys, shape).to(self.compute.device)
                latent, conditioning = self.sampler.sample(self.coarse, batch, noise)
                stage1 = self.codec.decode(latent)
            if self.refine is not None:
                noise = item_noise(self.seed, "refine", batch.keys, shape).to(self.compute.device)
                strength = self.strength if latent is not None else 1.0
                latent, conditioning = self.sampler.sample(self.refine, batch, noise, latent, strength)
                stage2 = self.codec.decode(latent)
        return Generated(stage1, stage2, conditioning)


def to_uint8(images: Tensor) -> np.ndarray:
    """(B,3,H,W) in [-1,1] -> (B,H,W,3) uint8."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).cpu().numpy()
