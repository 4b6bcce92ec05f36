"""One call of the exported pipeline: inputs to examples, sampling, and images at the size that the caller has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.assembly.model import unit_of
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import Compute, has_bf16
from ragaf_exp.config.build import build
from ragaf_exp.config.stages import trained
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Example
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sizes import check_multiple
from ragaf_exp.diffusion.keeping import Step, Stopped
from ragaf_exp.export.inputs import Edits, Picture, drawing_of, edits_of, hole_of, image_of
from ragaf_exp.inference.composite import Crop, crop_around, painted_pixels
from ragaf_exp.inference.examples import as_example
from ragaf_exp.inference.pipeline import Pipeline, to_uint8
from ragaf_exp.inference.requests import NUMBERS
from ragaf_exp.tasks.remove import PAINTED

IMAGE, MASK, SKETCH = "image", "mask", "sketch"
SEEDS = 2**62
Results = tuple[list[np.ndarray], list[np.ndarray] | None]  # final images and stage 1's, (H,W,3) uint8


def seed_of(seed: int | None, generator: torch.Generator | None) -> int:
    """Return the seed of a call: the one given, the generator's own on its first use, else one that it draws.

    Args:
        seed: A seed, which wins.
        generator: A generator, which is advanced; None: PyTorch's global one.
    """
    if seed is not None:
        return seed
    if generator is None:
        return int(torch.randint(SEEDS, (1,)))
    new = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    unused = torch.equal(generator.get_state(), new.get_state())
    following = int(torch.randint(SEEDS, (1,), generator=generator, device=generator.device))
    return generator.initial_seed() % SEEDS if unused else following


class Progress:
    """Passes steps on to a callback of diffusers.

    Args:
        pipeline: The pipeline, which the callback gets; its `_interrupt` stops sampling.
        callback: As `callback_on_step_end`.
        bar: A progress bar of tqdm.
    """

    def __init__(self, pipeline: Any, callback: Callable[..., Any] | None, bar: Any):
        self.pipeline, self.callback, self.bar = pipeline, callback, bar
        self.estimate: Tensor | None = None  # of x_0 after the last step, (B,C,h,w)

    def __call__(self, stage: int, step: Step) -> None:
        """Report a step. Raises Stopped if the callback has interrupted the pipeline."""
        if step.number == 1:
            self.bar.total = self.bar.n + step.count
        self.bar.update()
        self.estimate = step.x0
        if self.callback is not None:
            self.callback(self.pipeline, step.number - 1, step.t, {"stage": stage, "pred_original_sample": step.x0})
        if self.pipeline._interrupt:
            raise Stopped


@dataclass(frozen=True)
class Call:
    """The settings of one call.

    settings: of the sampler; None = the run's. device, precision: the network's. task: of a run of several tasks.
    """

    given: Parts
    settings: Mapping[str, Any]
    strength: float | None
    seed: int
    precision: str
    device: str
    task: str = ""

    @cached_property
    def parts(self) -> Parts:
        """The run's parts with this call's seed, strength and sampler."""
        cfg = self.given.cfg.copy()
        cfg.seed = self.seed
        if self.strength is not None:
            if not 0 < self.strength <= 1:
                raise UserError(f"strength={self.strength}: must be above 0 and at most 1")
            cfg.stage[trained(cfg)[-1].name].strength = self.strength
        for key, value in self.settings.items():
            if value is not None:
                cfg.sampler[key] = value
        codec = self.given.codec.to(self.compute.device)
        sampler = build(cfg.sampler, "sampler", diffusion=self.given.diffusion)
        return replace(self.given, cfg=cfg, codec=codec, sampler=sampler)

    @cached_property
    def compute(self) -> Compute:
        """Device and precision; float32 where the device has no bf16."""
        lacks = self.precision == "bf16" and not has_bf16(torch.device(self.device))
        return Compute(torch.device(self.device).type, "no" if lacks else self.precision)

    def run(
        self, sampler: Callable[[Call], Pipeline], prompt: str | Sequence[str], sketch: Any, edits: Edits | None,
        pictures: Mapping[str, Picture], size: tuple[int | None, int | None], polarity: str, progress: Progress,
    ) -> Results:  # fmt: skip
        """Sample the images.

        Args:
            sampler: Builds the sampling pipeline.
            prompt: One caption, or several.
            sketch: One drawing, several, or None.
            edits: Of regions.
            pictures: The pictures of the task's columns, and an image to keep.
            size: Height and width of the image in pixels; None = the training images'.
            polarity: Of the sketches.
            progress: Is called after every step.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        drawings = [None if s is None else drawing_of(s, polarity) for s in _several(sketch, len(prompts))]
        self._check(pictures, drawings, edits)
        pipeline = sampler(self)
        if IMAGE in self.parts.task.columns:
            return self._edit(pipeline, prompts, drawings, pictures, progress)
        height, width = (side or self.parts.cfg.data.size for side in size)
        check_multiple(height, width, unit_of(self.parts.cfg, pipeline.last))
        examples = [self._example(p, d, edits, pictures, (height, width)) for p, d in zip(prompts, drawings, strict=True)]
        return sampled(pipeline, examples, progress)

    def _check(self, pictures: Mapping[str, Picture], drawings: list[np.ndarray | None], edits: Edits | None) -> None:
        """Raise UserError where the run's task takes other pictures than these."""
        task = self.parts.task
        task.select(self.task, pictures)
        known = [name for name, kind in task.columns.items() if kind != NUMBERS]
        columns = ", ".join(known)
        base = {IMAGE} if edits is not None else set()  # the image of which the edits change regions
        if unknown := sorted(pictures.keys() - set(known) - base):
            raise UserError(f"{unknown[0]}: this run's task takes {columns}; an image to keep needs edits")
        if SKETCH in task.columns and SKETCH not in task.optional and any(drawing is None for drawing in drawings):
            raise UserError("sketch: missing; give a drawing")
        if absent := [name for name in task.columns if name not in {"prompt", SKETCH, *task.optional, *pictures}]:
            raise UserError(f"{absent[0]}: missing; this run's task takes {columns}")

    def _example(
        self, prompt: str, drawing: np.ndarray | None, edits: Edits | None, pictures: Mapping[str, Picture],
        size: tuple[int, int],
    ) -> Example:  # fmt: skip
        inputs = {name: image_of(value) for name, value in pictures.items() if name != IMAGE}
        example = as_example(drawing, prompt, self.parts, size, inputs)
        if edits is None:
            return example
        return replace(example, edits=edits_of(edits, example.regions, pictures.get(IMAGE), size))

    def _edit(
        self, pipeline: Pipeline, prompts: list[str], drawings: list[np.ndarray | None], pictures: Mapping[str, Picture],
        progress: Progress,
    ) -> Results:  # fmt: skip
        """Edit one image: sample a square around the hole, or the whole image, and put the result back."""
        if len(prompts) > 1:
            raise UserError("prompt: this run's task edits one image at a time")
        picture = image_of(pictures[IMAGE])
        hole = hole_of(pictures[MASK]) if MASK in pictures else None
        if hole is not None and hole.shape != picture.shape[:2]:
            raise UserError(f"mask_image: is {hole.shape[1]}x{hole.shape[0]}, and the image "
                            f"{picture.shape[1]}x{picture.shape[0]}; give both at one size")  # fmt: skip
        if hole is not None and not hole.any():
            return [picture], None
        where = np.ones(picture.shape[:2], bool) if hole is None else hole
        crop = crop_around(where, self.parts.cfg.data.size, whole=hole is None)
        inputs = _columns(pictures, crop, hole)
        example = as_example(drawings[0], prompts[0], self.parts, (crop.size, crop.size), inputs)
        (result,), _ = sampled(pipeline, [example], progress)
        if hole is None:
            return [self.parts.task.full_resolution(picture, inputs[IMAGE], result)], None
        return [crop.paste(picture, result, painted_pixels(hole, example.conditions.get(PAINTED), crop))], None


def sampled(pipeline: Pipeline, examples: list[Example], progress: Progress) -> Results:
    """Sample examples; where the callback interrupts, the estimate after the last step is the image.

    Args:
        pipeline: The sampling pipeline.
        examples: The examples, of one size.
        progress: Is called after every step.
    """
    try:
        images = pipeline(collate(examples), progress).to_images()
    except Stopped:
        assert progress.estimate is not None, "it stops after a step"
        return list(to_uint8(pipeline.codec.decode(progress.estimate))), None
    first, *later = images.images.values()
    return list(images.final), list(first) if later else None


def _columns(pictures: Mapping[str, Picture], crop: Crop, hole: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the pictures of the task's columns as the network takes them."""
    inputs = {name: image_of(value) for name, value in pictures.items() if name != MASK}
    inputs[IMAGE] = crop.image(inputs[IMAGE])
    return inputs if hole is None else {**inputs, MASK: crop.hole(hole).astype(np.float32)}


def _several(sketch: Any, count: int) -> list[Any]:
    """Return a drawing for every prompt."""
    if not isinstance(sketch, list | tuple):
        return [sketch] * count
    if len(sketch) != count:
        raise UserError(f"sketch: {len(sketch)} drawings for {count} prompts; give one, or one for each prompt")
    return list(sketch)
