"""Removal: an object goes, with its shadow, and what lies behind it is painted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch, Example
from ragaf_exp.data.sources.removal import grown
from ragaf_exp.tasks.holes import GIVEN, HOLE, HoleTask

PAINTED = "painted"


class Remove(HoleTask):
    """Removes what a mask covers. The mask need not cover the shadow: the image may change up to `reach` around it.

    The network sees the whole image, with the object, from which it can tell where the shadow falls.

    Args:
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        reach: Distance from the mask up to which pixels may change, as a share of the image's side.
        image_hint: Give the image to the hint encoder too, at full resolution.
        outside: Weight of latent pixels that may not change in the loss.
    """

    metrics = ("eval.edits:hole_metrics", "eval.edits:removal_metrics")

    def __init__(
        self, caption_dropout: limits.Share = 0.1, sketch_dropout: limits.Share = 0.1, reach: limits.Share = 0.1,
        image_hint: bool = True, outside: limits.Share = 0.1,
    ):  # fmt: skip
        super().__init__(caption_dropout, sketch_dropout, image_hint, outside)
        self.reach = reach

    @property
    def maps(self) -> dict[str, int]:
        """Those of every task with a hole, and where the image may change."""
        return {**super().maps, PAINTED: 1}

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The image with the object, the mask and its surroundings."""
        given = example.item.conditions
        if absent := {GIVEN, HOLE} - given.keys():
            raise UserError(f"data: {example.item.key} has no {', '.join(sorted(absent))}; take data=removal, or "
                            "data=edits with a table of input_image, mask and target_image")  # fmt: skip
        hole = given[HOLE]
        painted = grown(hole > 0, self.reach * min(hole.shape)) if hole.any() else hole > 0
        return {GIVEN: given[GIVEN], HOLE: hole, PAINTED: painted.astype(np.float32)}

    def painted(self, batch: Batch) -> Tensor:
        """(B,1,H,W): 1 in the hole and up to `reach` around it."""
        return batch.conditions[PAINTED]
