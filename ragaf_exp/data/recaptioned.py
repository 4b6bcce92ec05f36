"""Training on one of an item's several captions at a time."""

from __future__ import annotations

from dataclasses import replace

from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example
from ragaf_exp.data.loader import Examples


class Recaptioned(Examples):
    """A split whose items training sees with a caption sampled by (seed, step, item); by index they have their first.

    As an item occurs once per epoch, it has another sampled caption in each.

    Args:
        examples: The split.
        seed: The run's seed.
    """

    def __init__(self, examples: Examples, seed: int):
        super().__init__(examples.items, examples.prepare)
        self.examples, self.seed = examples, seed

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def at(self, step: int, index: int) -> Example:
        example = self.examples.at(step, index)
        captions = example.item.captions
        if not captions:
            return example
        caption = captions[derive(self.seed, "caption", step, example.item.key) % len(captions)]
        return replace(example, item=replace(example.item, caption=caption.text, objects=caption.objects))
