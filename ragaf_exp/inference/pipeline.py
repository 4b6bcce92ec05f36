"""The two-stage sampling pipeline, used by sampling, validation and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.compute.device import Compute
from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.randomness import item_noise
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.model import Model


@dataclass(frozen=True)
class SampledTensors:
    """The samples of one batch as tensors. A stage that did not run is None."""

    stage1: Tensor | None  # (B,3,H,W) in [-1,1]
    stage2: Tensor | None
    region_text: Tensor | None  # (B,N,T) attention of regions to tokens, of the last stage that ran

    def to_images(self) -> SampledImages:
        """The samples as uint8 images."""
        stage1, stage2 = (None if x is None else to_uint8(x) for x in (self.stage1, self.stage2))
        return SampledImages(stage1, stage2, None if self.region_text is None else self.region_text.float().cpu().numpy())

    @staticmethod
    def joined(parts: list[SampledTensors]) -> SampledTensors:
        """Concatenate parts of a batch, whose captions may differ in length."""
        columns = [[getattr(part, name) for part in parts] for name in ("stage1", "stage2", "region_text")]
        if columns[2][0] is not None:
            longest = max(x.shape[2] for x in columns[2])
            columns[2] = [F.pad(x, (0, longest - x.shape[2])) for x in columns[2]]
        return SampledTensors(*(None if column[0] is None else torch.cat(column) for column in columns))


@dataclass(frozen=True)
class SampledImages:
    """The samples of one batch as arrays, for scoring, display and storage. A stage that did not run is None."""

    stage1: np.ndarray | None  # (B,H,W,3) uint8
    stage2: np.ndarray | None
    region_text: np.ndarray | None  # (B,N,T) float32, attention of regions to tokens

    def first(self, count: int) -> SampledImages:
        """The samples of the first `count` items."""
        return SampledImages(*(x if x is None else x[:count] for x in (self.stage1, self.stage2, self.region_text)))

    @property
    def final(self) -> np.ndarray:
        """(B,H,W,3) uint8, the images of the last stage that ran."""
        last = self.stage1 if self.stage2 is None else self.stage2
        assert last is not None, "a pipeline has at least one stage"
        return last


def stage_images(sampled: SampledTensors | SampledImages) -> dict[str, Any]:
    """The samples of the stages that ran, by name."""
    return {name: images for name in IMAGES if (images := getattr(sampled, name)) is not None}


class Pipeline:
    """Samples a batch with stage 1, then refines the result with stage 2.

    Args:
        coarse: Stage 1's model, or None.
        refine: Stage 2's model, or None.
        codec: Encodes images to latents and decodes them.
        sampler: The diffusion sampler of both stages.
        compute: Device and precision.
        strength: The share of the noise schedule, in (0,1], at which stage 2 starts from stage 1's image.
        seed: The seed of the noise.
        chunks: The number of items sampled at once, shared by the pipelines of a run.
        scale: The factor by which stage 1 samples at a lower resolution; its images are upsampled to the batch's.
    """

    def __init__(
        self, coarse: Model | None, refine: Model | None, codec: Codec, sampler: Sampler, compute: Compute,
        strength: float, seed: int, chunks: Chunks | None = None, scale: int = 1,
    ):  # fmt: skip
        self.coarse, self.refine, self.codec, self.sampler = coarse, refine, codec, sampler
        self.compute, self.strength, self.seed = compute, strength, seed
        self.chunks, self.scale = chunks or Chunks(), scale

    def __call__(self, batch: Batch) -> SampledTensors:
        """Sample a batch, in smaller chunks if memory runs out.

        Noise depends only on (seed, stage, item key), so that metrics do not depend on batch size or order.
        """
        return SampledTensors.joined(self.chunks.over(len(batch), lambda rows: self._sample(batch.rows(rows))))

    @property
    def last(self) -> Model:
        """The model of the last stage."""
        model = self.coarse if self.refine is None else self.refine
        assert model is not None, "a pipeline has at least one stage"
        return model

    @torch.no_grad()
    def _sample(self, batch: Batch) -> SampledTensors:
        batch = batch.to(self.compute.device)
        latent = stage1 = stage2 = conditioning = None
        with self.compute:
            if self.coarse is not None:
                small = batch.smaller(self.scale)
                latent, conditioning = self.sampler.sample(self.coarse, small, self._noise("coarse", small))
                stage1 = self.codec.decode(latent)
                if self.scale > 1:
                    stage1 = F.interpolate(stage1, batch.image.shape[2:], mode="bilinear")
                    latent = self.codec.encode(stage1)
            if self.refine is not None:
                strength = self.strength if latent is not None else 1.0
                noise = self._noise("refine", batch)
                latent, conditioning = self.sampler.sample(self.refine, batch, noise, latent, strength)
                stage2 = self.codec.decode(latent)
        regions = None if conditioning is None else conditioning.regions
        return SampledTensors(stage1, stage2, None if regions is None else regions.region_text)

    def _noise(self, stage: str, batch: Batch) -> Tensor:
        """(B,C,h,w) standard normal noise."""
        shape = self.codec.latent_shape(batch)[1:]
        return item_noise(self.seed, stage, batch.keys, shape).to(self.compute.device)


def to_uint8(images: Tensor) -> np.ndarray:
    """(B,3,H,W) in [-1,1] -> (B,H,W,3) uint8."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).cpu().numpy()
