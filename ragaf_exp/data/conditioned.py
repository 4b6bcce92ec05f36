"""Examples that carry the conditions of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example
from ragaf_exp.data.loader import Examples

MakeConditions = Callable[[Example, np.random.Generator], Mapping[str, np.ndarray]]


class Conditioned(Examples):
    """A split with a task's conditions: by index a function of (seed, item), in training of the step too.

    Args:
        examples: The split.
        make: (example, generator) -> arrays by name.
        seed: The run's seed.
    """

    def __init__(self, examples: Examples, make: MakeConditions, seed: int):
        super().__init__(examples.items, examples.prepare)
        self.examples, self.make, self.seed = examples, make, seed

    def __getitem__(self, index: int) -> Example:
        return self._conditioned(self.examples[index])

    def at(self, step: int, index: int) -> Example:
        return self._conditioned(self.examples.at(step, index), step)

    def _conditioned(self, example: Example, *step: int) -> Example:
        rng = np.random.default_rng(derive(self.seed, "conditions", *step, example.item.key))
        return replace(example, conditions=self.make(example, rng))
