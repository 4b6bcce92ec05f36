"""Phrases of known objects as prompts of their regions, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from ragaf_exp.core.edits import RegionEdit, RegionEdits
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example, SceneObject
from ragaf_exp.data.loader import Examples, region_objects

SHORT = 0.5  # share of assigned objects that are described by their colour and fill alone


class Assigned(Examples):
    """A split in which some regions read their own phrase, as a function of (seed, step, item); by index unchanged.

    A network trained so also learns phrases without their context. The other regions find their words in the caption.

    Args:
        examples: The split.
        share: Probability that an object's phrase is assigned to its regions.
        seed: The run's seed.
    """

    def __init__(self, examples: Examples, share: float, seed: int):
        super().__init__(examples.items, examples.prepare)
        self.examples, self.share, self.seed = examples, share, seed

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def at(self, step: int, index: int) -> Example:
        example = self.examples.at(step, index)
        rng = np.random.default_rng(derive(self.seed, "assign", step, example.item.key))
        picked = rng.random((len(example.item.objects), 2))
        chosen = [i for i, (one, _) in enumerate(picked) if one < self.share]
        short = {i for i in chosen if picked[i, 1] < SHORT}
        return with_prompts(example, chosen, lambda i, thing: colour_of(thing) if i in short else "")


def with_prompts(
    example: Example, objects: Collection[int], prompt: Callable[[int, SceneObject], str] = lambda i, thing: ""
) -> Example:
    """Prompt the regions of some objects.

    Args:
        example: An example with annotated objects.
        objects: Indices of the objects.
        prompt: The prompt of an object, given its index; "" = its phrase in the caption.

    Returns:
        The example with these edits; unchanged where none of the objects has a region.
    """
    item, owners = example.item, region_objects(example)
    texts = {i: prompt(i, item.objects[i]) or item.caption[slice(*item.objects[i].span)] for i in objects}
    edits = tuple(RegionEdit(texts.get(owner, "")) for owner in owners.tolist())
    return replace(example, edits=RegionEdits(edits)) if any(edit.prompt for edit in edits) else example


def colour_of(thing: SceneObject) -> str:
    """Describe an object's fill and colour without its shape; "" if the caption gives it no colour."""
    fill = "" if thing.fill == "plain" else thing.fill
    return f"{fill} {thing.colour}".strip() if thing.colour else ""
