"""Data of several tasks: the items of several embedded sources, in shares by weight."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.config.build import build, locate
from ragaf_exp.config.options import option
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.jit import compiled
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.core.types import Item
from ragaf_exp.data.split import SPLITS, split_id

COUNTS = ("size", "seed", "train", "val", "test")  # settings that every embedded source has


class Mixture:
    """Items of several sources; those of the k-th source belong to the k-th task of a multitask run.

    Args:
        size: Side of the square images in pixels, a multiple of 4.
        seed: Seed of all items.
        train: Number of training items of all sources together.
        val: Number of validation items.
        test: Number of test items.
        sources: Options of the group `data`, which must be embedded: they need no files.
        weights: Shares of the sources, of any sum; empty for equal ones.

    Raises:
        UserError: A source is unknown or needs files, or the weights do not fit.
    """

    def __init__(
        self, size: limits.Size = 64, seed: limits.Seed = 0, train: limits.Items = 6000, val: limits.Items = 256,
        test: limits.Items = 256, sources: limits.Names = ("scenes", "removal"), weights: limits.Weights = (),
    ) -> None:  # fmt: skip
        if weights and (len(weights) != len(sources) or not sum(weights) > 0):
            raise UserError(f"data.weights={list(weights)}: must be one positive number for each of {', '.join(sources)}")
        shares = np.array(weights or [1.0] * len(sources), float)
        self.lengths = dict(zip(SPLITS, (train, val, test), strict=True))
        self.tasks = {name: _interleaved(shares, length) for name, length in self.lengths.items()}
        self.sources = [self._source(name, k, size, seed) for k, name in enumerate(sources)]

    def split(self, name: str) -> MixtureItems:
        """Return the items of "train", "val" or "test". Raises UserError for another name."""
        split_id(name)
        return MixtureItems([source.split(name) for source in self.sources], self.tasks[name])

    def _source(self, name: str, task: int, size: int, seed: int) -> object:
        node = option("data", name, "data.sources")
        parameters = inspect.signature(locate(node.get("_target_"), "data.sources").__init__).parameters
        if not set(COUNTS) <= set(parameters) or "root" in parameters:
            raise UserError(f"data.sources: {name} needs files; take embedded sources, as scenes or removal")
        counts = {split: max(1, int((self.tasks[split] == task).sum())) for split in SPLITS}
        return build(option("data", name, "data.sources", size=size, seed=seed, **counts), "data")


class MixtureItems(Sequence[Item]):
    """The items of a split. tasks: (L,) the index of each item's source, which is that of its task."""

    def __init__(self, parts: Sequence[LazyItems[Item]], tasks: np.ndarray):
        self.parts, self.tasks = parts, tasks
        self.rows = np.empty(len(tasks), np.int32)  # of each item, in its source
        for source in range(len(parts)):
            own = np.flatnonzero(tasks == source)
            self.rows[own] = np.arange(len(own))

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Item:
        task = int(self.tasks[index])
        return replace(self.parts[task][int(self.rows[index])], task=task)

    def captions(self, count: int) -> list[str]:
        """Return the captions of the first `count` items, or of all where there are fewer."""
        return [self.parts[self.tasks[i]].caption(int(self.rows[i])) for i in range(min(count, len(self)))]


@compiled
def _interleaved(shares: np.ndarray, length: int) -> np.ndarray:
    """The source (L,) of each of `length` items, so that any first part of them has the shares nearly exactly."""
    ideal = shares / shares.sum()
    taken, order = np.zeros(len(shares)), np.empty(length, np.int8)
    for number in range(length):
        source = np.argmax(ideal * (number + 1) - taken)
        taken[source] += 1
        order[number] = source
    return order
