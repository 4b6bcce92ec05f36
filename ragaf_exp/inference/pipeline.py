"""The sampling pipeline, a chain of stages; used by sampling, validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ragaf_exp.compute.device import Compute
from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.config.stages import StageSpec
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
REGION_TEXT = "region_text"


@dataclass(frozen=True)
class SampledTensors:
    """The samples of one batch as tensors."""

    images: dict[str, Tensor]  # name (see StageSpec.image) -> (B,3,H,W) in [-1,1], of the stages that ran, in order
    region_text: Tensor | None = None  # (B,N,T) attention of regions to tokens, of the last stage that ran

    def to_images(self) -> SampledImages:
        """The samples as uint8 images."""
        images = {name: to_uint8(x) for name, x in self.images.items()}
        return SampledImages(images, None if self.region_text is None else self.region_text.float().cpu().numpy())

    @staticmethod
    def joined(parts: list[SampledTensors]) -> SampledTensors:
        """Concatenate parts of a batch, whose captions may differ in length."""
        images = {name: torch.cat([part.images[name] for part in parts]) for name in parts[0].images}
        maps = [part.region_text for part in parts if part.region_text is not None]
        longest = max((x.shape[2] for x in maps), default=0)
        return SampledTensors(images, torch.cat([F.pad(x, (0, longest - x.shape[2])) for x in maps]) if maps else None)


@dataclass(frozen=True)
class SampledImages:
    """The samples of one batch as arrays, for scoring, display and storage."""

    images: dict[str, np.ndarray]  # name -> (B,H,W,3) uint8, of the stages that ran, in order
    region_text: np.ndarray | None = None  # (B,N,T) float32, attention of regions to tokens

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The images, and `region_text` if there is one, by name."""
        return self.images | ({} if self.region_text is None else {REGION_TEXT: self.region_text})

    @staticmethod
    def of_arrays(arrays: Mapping[str, np.ndarray]) -> SampledImages:
        """The samples whose `arrays` these are."""
        return SampledImages(
            {name: arrays[name] for name in sorted(arrays) if name != REGION_TEXT}, arrays.get(REGION_TEXT)
        )

    def first(self, count: int) -> SampledImages:
        """The samples of the first `count` items."""
        return SampledImages.of_arrays({name: x[:count] for name, x in self.arrays.items()})

    @property
    def final(self) -> np.ndarray:
        """(B,H,W,3) uint8, the images of the last stage that ran."""
        return list(self.images.values())[-1]


@dataclass(frozen=True)
class SampledStage:
    """A stage of a pipeline.

    Args:
        spec: Its name, number, scale, and the share of the noise schedule that it runs from the stage before.
        model: Its model.
    """

    spec: StageSpec
    model: Model


class Pipeline:
    """Samples a batch with a chain of stages: each starts from the samples of the one before, the first from noise.

    A stage may sample at a lower resolution; its images are upsampled to the batch's.

    Args:
        stages: The stages, in order.
        codec: Encodes images to latents and decodes them.
        sampler: The diffusion sampler of all stages.
        compute: Device and precision.
        seed: The seed of the noise.
        chunks: The number of items sampled at once, shared by the pipelines of a run.
    """

    def __init__(
        self, stages: Sequence[SampledStage], codec: Codec, sampler: Sampler, compute: Compute, seed: int,
        chunks: Chunks | None = None,
    ):  # fmt: skip
        assert stages, "a pipeline has at least one stage"
        self.stages, self.codec, self.sampler = tuple(stages), codec, sampler
        self.compute, self.seed, self.chunks = compute, seed, chunks or Chunks()

    def __call__(self, batch: Batch, watch: StageWatch | None = None) -> SampledTensors:
        """Sample a batch, in smaller chunks if memory runs out.

        Noise depends only on (seed, stage, item key), so that metrics do not depend on batch size or order.

        Args:
            batch: The conditions. Where its edits keep images, the last stage alone runs, and the pixels outside the
                part that is sampled again are those of the images.
            watch: Called with the number of the stage and the step after each; it may raise diffusion.keeping.Stopped.

        Raises:
            UserError: The batch has region edits, and no stage has regions.
        """
        if batch.edits is not None and not self.has_regions:
            raise UserError("edits: this run has no stage with regions; train one with stage=both")
        sampled = self.chunks.over(len(batch), lambda rows: self._sample(batch.rows(rows), watch))
        return SampledTensors.joined(sampled)

    @property
    def models(self) -> dict[str, Model]:
        """The models of the stages by name, in order."""
        return {stage.spec.name: stage.model for stage in self.stages}

    @property
    def last(self) -> Model:
        """The model of the last stage."""
        return self.stages[-1].model

    @property
    def has_regions(self) -> bool:
        """Whether the last stage has the region path; no stage has one otherwise."""
        return self.last.ragaf is not None

    @torch.no_grad()
    def _sample(self, batch: Batch, watch: StageWatch | None) -> SampledTensors:
        batch, last, start = batch.to(self.compute.device), self.stages[-1], None
        images: dict[str, Tensor] = {}
        with self.compute:
            if batch.edits is not None and batch.edits.keep is not None:
                images[last.spec.image], conditioning = self._sample_again(last, batch, batch.edits.keep, watch)
            else:
                for stage, following in zip(self.stages, (*self.stages[1:], None), strict=True):
                    start, image, conditioning = self._run(stage, batch, start, watch)
                    if following is not None and stage.spec.scale > 1:
                        start = self.codec.encode(_smaller(image, following.spec.scale))
                    images[stage.spec.image] = stage.model.inputs.finish(image, batch)
        return SampledTensors(images, None if conditioning.regions is None else conditioning.regions.region_text)

    def _run(
        self, stage: SampledStage, batch: Batch, start: Tensor | None, watch: StageWatch | None
    ) -> tuple[Tensor, Tensor, Conditioning]:
        """Run a stage from a latent, or from noise where it is None; returns its latent, its image and its conditions."""
        spec, small = stage.spec, batch.smaller(stage.spec.scale)
        strength, noise = 1.0 if start is None else spec.strength, self._noise(stage, small)
        latent, conditioning = self.sampler.sample(
            stage.model, small, noise, start, strength, watch=_of_stage(watch, spec.number)
        )
        image = self.codec.decode(latent)
        if spec.scale > 1:
            image = F.interpolate(image, batch.image.shape[2:], mode="bilinear")
        return latent, image, conditioning

    def _sample_again(
        self, stage: SampledStage, batch: Batch, keep: KeptImages, watch: StageWatch | None
    ) -> tuple[Tensor, Conditioning]:
        """Sample a part of the kept images with a stage; the pixels of the rest are copied, whatever the codec."""
        latent = self.codec.encode(keep.image)
        known = Known(latent, F.adaptive_max_pool2d(keep.redo.float(), latent.shape[2:]) > 0)
        latent, conditioning = self.sampler.sample(
            stage.model, batch, self._noise(stage, batch), latent, keep.strength, known, _of_stage(watch, stage.spec.number)
        )
        return self.codec.decode(latent).float().where(keep.redo, keep.image), conditioning

    def _noise(self, stage: SampledStage, batch: Batch) -> Tensor:
        """(B,C,h,w) standard normal noise of a stage."""
        shape = self.codec.latent_shape(batch)[1:]
        return item_noise(self.seed, stage.spec.name, batch.keys, shape).to(self.compute.device)


def _smaller(image: Tensor, scale: int) -> Tensor:
    return image if scale == 1 else F.avg_pool2d(image, scale)


def _of_stage(watch: StageWatch | None, stage: int) -> Watch | None:
    return None if watch is None else partial(watch, stage)
