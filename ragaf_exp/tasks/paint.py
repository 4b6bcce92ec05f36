"""Paint to image: a sketch, colour hints on it and a caption, each optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.types import Batch, Example, Item
from ragaf_exp.data.painting import fit_hints, random_hints, split_painting
from ragaf_exp.models.inputs import Keep, Source, present
from ragaf_exp.tasks.base import REGIONS, Condition, Panel, Task

HINTS, HINTED = "hints", "hinted"
PAINTING = "sketch_image"


class Paint(Task):
    """Follows lines, colours and words. Where they disagree, guidance decides.

    Conditions: `hints` (H,W,3), colours, and `hinted` (H,W), 1 where there is one. Both enter through the hint encoder.
    Data without hints get random ones, in training others at each step.

    Args:
        caption_dropout: Probability that a training item's caption is dropped.
        sketch_dropout: The same for its sketch, with the regions and the graph that come from it.
        hints_dropout: The same for its hints.
        wrong: Probability that a generated mark has a wrong colour: the caption then decides.
    """

    columns = {PAINTING: "image", "prompt": "text"}
    optional = ("prompt",)
    hint_channels = 5
    has_source = True
    metrics = ("eval.painting:hint_metrics", "eval.scoring:sketch_metrics", "eval.scoring:binding_metrics")
    rivals = {"flood_fill": "eval.rivals.examples:flood_fill"}

    def __init__(
        self, caption_dropout: limits.Share = 0.2, sketch_dropout: limits.Share = 0.1,
        hints_dropout: limits.Share = 0.2, wrong: limits.Share = 0.1,
    ):  # fmt: skip
        self.caption_dropout, self.sketch_dropout, self.hints_dropout = caption_dropout, sketch_dropout, hints_dropout
        self.wrong = wrong

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Caption, sketch and hints, each dropped in training."""
        return (
            Condition("text", self.caption_dropout, fields=("captions",)),
            Condition("sketch", self.sketch_dropout, fields=("sketch", *REGIONS)),
            Condition(HINTS, self.hints_dropout, maps={HINTS: 3, HINTED: 1}),
        )

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The sketch with the hints."""
        return (Panel("painting", painting_of),)

    def make_conditions(self, example: Example, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
        """The hints of the item, or random ones."""
        given = example.item.conditions
        if HINTS in given:
            return {HINTS: given[HINTS], HINTED: given[HINTED]}
        hints, hinted = random_hints(rng, example.item.image, self.wrong)
        return {HINTS: hints, HINTED: hinted}

    def request_drawing(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The lines of the painting, (H,W) in [0,1]; None if it has none."""
        lines = split_painting(inputs[PAINTING])[0]
        return lines if (lines > 0.5).any() else None

    def request_item(self, item: Item, inputs: Mapping[str, np.ndarray]) -> Item:
        """The hints of a request.

        Args:
            item: Its prompt and sketch, at the size that is sampled.
            inputs: `sketch_image` (H,W,3) uint8 of any size.
        """
        _, hints, hinted = split_painting(inputs[PAINTING])
        hints, hinted = fit_hints(hints, hinted, item.image.shape[:2], "pad")
        return replace(item, conditions={HINTS: hints, HINTED: hinted})

    def source(self, batch: Batch, keep: Keep) -> Source:
        """The hints on white with the sketch in black, all of which changes."""
        sketch = batch.sketch * present(keep, "sketch", batch.sketch)
        hinted = batch.conditions[HINTED] * present(keep, HINTS, batch.sketch)
        canvas = torch.where(hinted > 0, batch.conditions[HINTS], torch.ones_like(batch.conditions[HINTS]))
        return Source((canvas + 1) * (1 - sketch) - 1, torch.ones_like(sketch))

    def hint_image(self, batch: Batch, keep: Keep) -> tuple[Tensor, Tensor | None]:
        """Sketch, map of the hints and their colours, (B,5,H,W)."""
        sketch = batch.sketch * present(keep, "sketch", batch.sketch)
        hinted = batch.conditions[HINTED] * present(keep, HINTS, batch.sketch)
        return torch.cat([sketch, hinted, batch.conditions[HINTS] * hinted], dim=1), None


def painting_of(example: Example) -> np.ndarray:
    """An example's hints on white, with its sketch in black: (H,W,3) uint8."""
    hinted = example.conditions[HINTED][..., None] > 0
    canvas = np.where(hinted, example.conditions[HINTS], np.uint8(255))
    return np.rint(canvas * (1 - example.sketch[..., None])).astype(np.uint8)
