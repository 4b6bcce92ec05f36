"""Inpainting: an image with a hole, and optionally a caption and a sketch of what is in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.types import Example
from ragaf_exp.data.masks.generate import Masks
from ragaf_exp.data.sources.removal import grown
from ragaf_exp.tasks.holes import GIVEN, HOLE, HoleTask, given_hole, hidden


class Inpaint(HoleTask):
    """Paints the hole of an image, which a data source gives or which is generated, in training for each step.

    Args:
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        masks: Kind of generated masks: strokes, boxes, shapes, lama, mixed, mat_small or mat_large.
        mask_width: thin, medium or thick.
        mask_area: Smallest and largest share of the image that the hole covers.
        object_share: Share of items whose hole also hides one annotated object as a whole.
        image_hint: Give the image to the hint encoder too, at full resolution.
        outside: Weight of latent pixels outside the hole in the loss.
        image_dropout: Probability that a training item's image is dropped, with its hole, for `sampler.image_guidance`.
    """

    metrics = ("eval.edits:hole_metrics", "eval.edits:hidden_metrics", "eval.scoring:sketch_metrics")

    def __init__(
        self, caption_dropout: limits.Share = 0.1, sketch_dropout: limits.Share = 0.1, masks: str = "mixed",
        mask_width: str = "medium", mask_area: limits.Area = (0.0, 0.5), object_share: limits.Share = 0.3,
        image_hint: bool = True, outside: limits.Share = 0.1, image_dropout: limits.Share = 0.0,
    ):  # fmt: skip
        super().__init__(caption_dropout, sketch_dropout, image_hint, outside, image_dropout)
        self.masks, self.object_share = Masks(masks, mask_width, mask_area), object_share

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The hole, and the image without what it hides."""
        hole = given_hole(example.item.conditions)
        if hole is None:
            hole = self._generated(example, rng)
        return {GIVEN: hidden(example.item.image, hole), HOLE: hole}

    def _generated(self, example: Example, rng: np.random.Generator) -> np.ndarray:
        """(H,W) float32."""
        item = example.item
        height, width = item.image.shape[:2]
        hole = self.masks(str(rng.integers(2**62)), height, width)
        if item.objects and item.object_map is not None and rng.random() < self.object_share:
            label = item.objects[int(rng.integers(len(item.objects)))].label
            hole = hole | grown(item.object_map == label, (1 + 2 * rng.random()) * min(height, width) / 64)
        return hole.astype(np.float32)
