"""Variants of training items: mirrored, for captions that don't distinguish left and right, and cropped.

Their number is fixed, so that encoder outputs for each can be cached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Crop, Example, Item
from ragaf_exp.data.loader import Examples

LEAST = 0.75  # smallest side of a crop, as a share of the item's


class MirroredItems(Sequence):
    """The items of a split with image, drawing and objects mirrored left to right."""

    def __init__(self, items: Sequence[Item]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        item = _each(self.items[index], lambda name, array: np.ascontiguousarray(array[:, ::-1]))
        crop = item.crop
        return item if crop is None else replace(item, crop=replace(crop, left=crop.whole[1] - crop.left - crop.width))


class CroppedItems(Sequence):
    """The items of a split, cropped and enlarged to the original size.

    The crop has a side of LEAST to all of the item's, anywhere, as a function of (seed, number, the item's key).

    Args:
        items: The split.
        number: Index of the crop, from 1.
        seed: The run's seed.
    """

    def __init__(self, items: Sequence[Item], number: int, seed: int):
        self.items, self.number, self.seed = items, number, seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        item = self.items[index]
        rng = np.random.default_rng(derive(self.seed, "crop", self.number, item.key))
        height, width = item.image.shape[:2]
        share = rng.uniform(LEAST, 1)
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)

        def window(name: str, array: np.ndarray) -> np.ndarray:
            kind = cv2.INTER_NEAREST if name == "object_map" else cv2.INTER_LINEAR
            return cv2.resize(array[top : top + rows, left : left + columns], (width, height), interpolation=kind)

        return replace(_each(item, window), crop=_inner(item, top, left, rows, columns))


def _inner(item: Item, top: int, left: int, rows: int, columns: int) -> Crop:
    """Compute the crop of a picture that a window of an item's image shows; the window is in pixels of the image."""
    height, width = item.image.shape[:2]
    outer = item.crop or Crop(0, 0, height, width, (height, width))
    down, across = outer.height / height, outer.width / width
    return Crop(outer.top + round(top * down), outer.left + round(left * across), round(rows * down),
                round(columns * across), outer.whole)  # fmt: skip


class Varied(Examples):
    """A split whose items training sees cropped and mirrored, as a function of (seed, step, item); by index unchanged.

    Args:
        crops: The split unchanged, then its crops, all equally likely.
        mirrors: The same, mirrored.
        share: Probability of a mirrored item.
        seed: The run's seed.
    """

    def __init__(self, crops: Sequence[Examples], mirrors: Sequence[Examples], share: float, seed: int):
        super().__init__(crops[0].items, crops[0].prepare)
        self.crops, self.mirrors, self.share, self.seed = crops, mirrors, share, seed

    def __getitem__(self, index: int) -> Example:
        return self.crops[0][index]

    def at(self, step: int, index: int) -> Example:
        mirrored = derive(self.seed, "mirror", step, index) / 2**63 < self.share
        number = derive(self.seed, "crop", step, index) % len(self.crops)
        return (self.mirrors if mirrored else self.crops)[number].at(step, index)


def pictures(items: Sequence[Item], crops: int, mirror: bool, seed: int) -> tuple[list[Sequence], list[Sequence]]:
    """List the variants of a split.

    Args:
        items: The split.
        crops: Number of crops.
        mirror: Whether to add mirrored variants.
        seed: The run's seed.

    Returns:
        The split and its crops; the same mirrored, empty without `mirror`.
    """
    plain = [items, *(CroppedItems(items, number, seed) for number in range(1, crops + 1))]
    return plain, [MirroredItems(some) for some in plain] if mirror else []


def _each(item: Item, change: Callable[[str, np.ndarray], np.ndarray]) -> Item:
    """Apply a function (field, array) -> array to every field that lies in the image's frame."""
    arrays = {name: getattr(item, name) for name in ("image", "drawing", "object_map")}
    further = {
        name: change(name, array) if array.shape[:2] == item.image.shape[:2] else array
        for name, array in item.conditions.items()
    }
    changed = {name: change(name, array) for name, array in arrays.items() if array is not None}
    return replace(item, conditions=further, **changed)
