"""The two-stage sampling pipeline, used by sampling, validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.compute.device import Compute
from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import item_noise
from ragaf_exp.core.tensors import to_uint8
from ragaf_exp.core.types import Batch, KeptImages
from ragaf_exp.diffusion.keeping import Known, Step, Watch
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.conditioning import Conditioning
from ragaf_exp.models.model import Model

StageWatch: TypeAlias = Callable[[int, Step], object]  # of the stage's number and its step


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

    def __call__(self, batch: Batch, watch: StageWatch | None = None) -> SampledTensors:
        """Sample a batch, in smaller chunks if memory runs out.

        Noise depends only on (seed, stage, item key), so that metrics do not depend on batch size or order.

        Args:
            batch: The conditions. Where its edits keep images, stage 1 does not run, and the pixels outside the part
                that is sampled again are those of the images.
            watch: Called with the number of the stage and the step after each; it may raise diffusion.keeping.Stopped.

        Raises:
            UserError: The batch has region edits, and there is no stage 2.
        """
        if batch.edits is not None and self.refine is None:
            raise UserError("edits: this run has no stage 2, which alone has regions; train one with stage=both")
        sampled = self.chunks.over(len(batch), lambda rows: self._sample(batch.rows(rows), watch))
        return SampledTensors.joined(sampled)

    @property
    def last(self) -> Model:
        """The model of the last stage."""
        model = self.coarse if self.refine is None else self.refine
        assert model is not None, "a pipeline has at least one stage"
        return model

    @torch.no_grad()
    def _sample(self, batch: Batch, watch: StageWatch | None) -> SampledTensors:
        batch = batch.to(self.compute.device)
        latent = stage1 = stage2 = conditioning = None
        keep = None if batch.edits is None else batch.edits.keep
        with self.compute:
            if keep is None and self.coarse is not None:
                small = batch.smaller(self.scale)
                latent, conditioning = self.sampler.sample(
                    self.coarse, small, self._noise("coarse", small), watch=_of_stage(watch, 1)
                )
                stage1 = self.codec.decode(latent)
                if self.scale > 1:
                    stage1 = F.interpolate(stage1, batch.image.shape[2:], mode="bilinear")
                    latent = self.codec.encode(stage1)
                stage1 = self.coarse.inputs.finish(stage1, batch)
            if keep is not None and self.refine is not None:
                stage2, conditioning = self._sample_again(self.refine, batch, keep, watch)
            elif self.refine is not None:
                strength = self.strength if latent is not None else 1.0
                noise = self._noise("refine", batch)
                latent, conditioning = self.sampler.sample(
                    self.refine, batch, noise, latent, strength, watch=_of_stage(watch, 2)
                )
                stage2 = self.refine.inputs.finish(self.codec.decode(latent), batch)
        regions = None if conditioning is None else conditioning.regions
        return SampledTensors(stage1, stage2, None if regions is None else regions.region_text)

    def _sample_again(
        self, model: Model, batch: Batch, keep: KeptImages, watch: StageWatch | None
    ) -> tuple[Tensor, Conditioning]:
        """Sample a part of the kept images with stage 2; the pixels of the rest are copied, whatever the codec."""
        latent = self.codec.encode(keep.image)
        known = Known(latent, F.adaptive_max_pool2d(keep.redo.float(), latent.shape[2:]) > 0)
        latent, conditioning = self.sampler.sample(
            model, batch, self._noise("refine", batch), latent, keep.strength, known, _of_stage(watch, 2)
        )
        return self.codec.decode(latent).float().where(keep.redo, keep.image), conditioning

    def _noise(self, stage: str, batch: Batch) -> Tensor:
        """(B,C,h,w) standard normal noise."""
        shape = self.codec.latent_shape(batch)[1:]
        return item_noise(self.seed, stage, batch.keys, shape).to(self.compute.device)


def _of_stage(watch: StageWatch | None, stage: int) -> Watch | None:
    return None if watch is None else partial(watch, stage)
