"""Mirrored training items: as many again, for captions that don't tell left from right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragaf_exp.data.loader import Examples
from ragaf_exp.randomness import derive
from ragaf_exp.types import Example, Item


class MirroredItems(Sequence):
    """Every item of a split with its image, drawing and objects mirrored left to right."""

    def __init__(self, items: Sequence[Item]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        item = self.items[index]
        names = ("image", "drawing", "object_map")
        arrays = {name: getattr(item, name) for name in names if getattr(item, name) is not None}
        return replace(item, **{name: np.ascontiguousarray(array[:, ::-1]) for name, array in arrays.items()})


class Mirrored(Examples):
    """A split whose items training sees mirrored in a share of its steps, as a function of (seed, step, item).

    plain, mirror: the same split, by its items and by MirroredItems. By index items are plain.
    """

    def __init__(self, plain: Examples, mirror: Examples, share: float, seed: int):
        super().__init__(plain.items, plain.prepare)
        self.plain, self.mirror, self.share, self.seed = plain, mirror, share, seed

    def __getitem__(self, index: int) -> Example:
        return self.plain[index]

    def at(self, step: int, index: int) -> Example:
        drawn = derive(self.seed, "mirror", step, index) / 2**63
        return (self.mirror if drawn < self.share else self.plain).at(step, index)
