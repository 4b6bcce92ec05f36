"""An image from a sketch and a caption."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.types import Example
from ragaf_exp.tasks.base import REGIONS, Condition, Panel, Task


class SketchText(Task):
    """A sketch says where, a caption says what.

    Args:
        caption_dropout: Probability that a training item's caption is dropped, for classifier-free guidance.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        mirror: Share of training items shown mirrored, for captions that do not distinguish left and right.
        crops: Crops of each training item, each shown as often as the item itself.
        assign: Share of the annotated objects whose regions read their own phrase instead of the caption.
    """

    columns = {"sketch": "drawing", "prompt": "text"}
    optional = ("prompt",)
    metrics = ("eval.scoring:sketch_metrics", "eval.scoring:binding_metrics", "eval.scoring:attention_metrics")

    def __init__(
        self, caption_dropout: limits.Share = 0.1, sketch_dropout: limits.Share = 0.1, mirror: limits.Share = 0.0,
        crops: limits.Crops = 0, assign: limits.Share = 0.0,
    ):  # fmt: skip
        self.caption_dropout, self.sketch_dropout = caption_dropout, sketch_dropout
        self.mirror, self.crops, self.assign = mirror, crops, assign

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Caption and sketch; without its sketch, an item has no regions."""
        return (
            Condition("text", self.caption_dropout, fields=("captions",)),
            Condition("sketch", self.sketch_dropout, fields=("sketch", *REGIONS)),
        )

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The sketch, and its regions and graph."""
        return Panel("sketch", _sketch), Panel("regions", "ragaf_exp.viz.regions:regions_of")


def _sketch(example: Example) -> np.ndarray:
    return example.sketch
