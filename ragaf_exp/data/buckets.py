"""Aspect ratio bucketing: images keep their aspect in sizes of about equal area, and each batch is of one size.

The sizes follow NovelAI's scheme (Anlatan 2022, "NovelAI improvements on Stable Diffusion"): sides are multiples of a
step, from half to twice the side of the square, and the area is at most the square's. Unlike there, the order of batches
is a function of (seed, step, rank), and every image comes equally often.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Example

COARSE_FROM, COARSE_STEP = 512, 64  # px: from this side on, sizes are multiples of COARSE_STEP
DEFAULT_UNIT = 8  # px, before the networks' own is known

Size = tuple[int, int]  # height, width in pixels


class Buckets:
    """The sizes that images are fitted to.

    Args:
        size: Side of the square whose area no bucket exceeds, in pixels.
        upscale: Enlarge images that are smaller than their bucket; else they get a smaller size.
    """

    def __init__(self, size: int, upscale: bool = False):
        self.size, self.upscale = size, upscale
        self.set_unit(DEFAULT_UNIT)

    def set_unit(self, unit: int) -> None:
        """Take sizes that networks accept: multiples of `unit` pixels, at COARSE_FROM and above of COARSE_STEP too."""
        self.step = math.lcm(unit, COARSE_STEP) if self.size >= COARSE_FROM else unit
        self.sizes = bucket_sizes(self.size, self.step)

    def largest(self) -> Size:
        """Return the size with the most pixels, of equal ones the squarest."""
        return max(self.sizes, key=lambda size: (size[0] * size[1], min(size)))

    def fit(self, height: int, width: int) -> Size:
        """Choose the size of an image.

        Args:
            height: Of the image, in pixels.
            width: Likewise.

        Returns:
            The size whose aspect is nearest to the image's; without `upscale` no side is longer than the image's, unless
            the image is smaller than one step.
        """
        aspect = math.log(height / width)
        size = min(self.sizes, key=lambda s: (round(abs(math.log(s[0] / s[1]) - aspect), 9), -s[0] * s[1]))
        if self.upscale:
            return size
        return min(size[0], self._below(height)), min(size[1], self._below(width))

    def _below(self, side: int) -> int:
        """The longest side in steps that is no longer than this one, at least one step."""
        return max(1, side // self.step) * self.step


def bucket_sizes(size: int, step: int) -> list[Size]:
    """List the sizes of about equal area.

    Args:
        size: Side of a square in pixels.
        step: Both sides are multiples of it.

    Returns:
        Heights and widths, from the tallest to the widest; each side from half to twice `size`, the area at most size^2.
    """
    sides = range(step, 2 * size + 1, step)
    pairs = {(size * size // side // step * step, side) for side in sides}
    pairs |= {(width, height) for height, width in pairs}
    least = max(step, size // 2 // step * step)
    moderate = [pair for pair in pairs if min(pair) >= least and max(pair) <= 2 * size]
    return sorted(moderate or [(step, step)], key=lambda pair: (pair[1] / pair[0], pair))


def groups_of(items: Sequence[Any]) -> list[np.ndarray]:
    """Indices of the items of each kind, where a split knows the kinds of its items; else of all items in one group."""
    kinds = kinds_of(items)
    if kinds is None:
        return [np.arange(len(items))]
    return [np.flatnonzero([kind == one for kind in kinds]) for one in sorted(set(kinds))]


def kinds_of(items: Sequence[Any]) -> Sequence[Any] | None:
    """The properties that the items of a batch share: their task (`tasks`) or their size (`sizes`); None if all do."""
    tasks = getattr(items, "tasks", None)
    return getattr(items, "sizes", None) if tasks is None else tasks


def items_of(tokens: int, size: Size, side: int, ranks: int = 1) -> int:
    """Number of images of one size in an optimizer step of at most `tokens` image tokens.

    Args:
        tokens: Image tokens per step over all ranks.
        size: Height and width of the images in pixels.
        side: Side of a token in pixels.
        ranks: Number of processes, which get equally many images each.

    Returns:
        A multiple of `ranks`.

    Raises:
        UserError: One image per process has more tokens.
    """
    each = (size[0] // side) * (size[1] // side)
    if tokens < ranks * each:
        raise UserError(f"stage.tokens={tokens}: an image of {size[0]}x{size[1]} pixels has {each} tokens; set at least "
                        f"{ranks * each}, or a smaller data.size")  # fmt: skip
    return tokens // (ranks * each) * ranks


def bucket_order(
    groups: Sequence[np.ndarray], batches: Sequence[int], seed: int, steps: range, rank: int = 0, ranks: int = 1
) -> Iterator[list[int]]:
    """Yield the item indices of each step's batch for one rank, all of one group: a function of (seed, step, rank).

    Each group has a stream of permutations of its items, from which its batches are cut. In epoch e it gives
    floor((e + 1) n / batch) - floor(e n / batch) batches, n being its items, so that every item comes equally often;
    the batches of an epoch are shuffled.

    Args:
        groups: Item indices by group.
        batches: Items per step over all ranks, by group.
        seed: The run's seed.
        steps: The steps to yield.
        rank: This process's rank.
        ranks: Number of processes.
    """
    parts = tuple((len(group), batch) for group, batch in zip(groups, batches, strict=True))
    epoch = int(steps.start / sum(count / batch for count, batch in parts))
    epoch = max(0, epoch - 1)  # at most the epoch of the first step
    for step in steps:
        while _batches_before(parts, epoch + 1) <= step:
            epoch += 1
        group, number = _epoch(parts, seed, epoch)[step - _batches_before(parts, epoch)]
        count, batch = parts[group]
        positions = np.arange(number * batch, (number + 1) * batch)[rank::ranks]
        passes, places = np.divmod(positions, count)
        yield [int(groups[group][_permutation(count, seed, group, int(p))[i]])
               for p, i in zip(passes, places, strict=True)]  # fmt: skip


Parts = tuple[tuple[int, int], ...]  # number of items and batch size of each group


def _batches_before(parts: Parts, epoch: int) -> int:
    """Count the batches of all epochs before this one."""
    return sum(epoch * count // batch for count, batch in parts)


@lru_cache(maxsize=4)
def _epoch(parts: Parts, seed: int, epoch: int) -> list[tuple[int, int]]:
    """List the batches of an epoch in their order: group, and number of the batch in the group's stream."""
    batches = [(group, number) for group, (count, batch) in enumerate(parts)
             for number in range(epoch * count // batch, (epoch + 1) * count // batch)]  # fmt: skip
    order = np.random.default_rng(derive(seed, "buckets", epoch)).permutation(len(batches))
    return [batches[i] for i in order]


@lru_cache(maxsize=64)
def _permutation(count: int, seed: int, group: int, number: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, "bucket order", group, number)).permutation(count)


def same_size(examples: Sequence[Example], batch: int) -> list[list[int]]:
    """Cut examples into batches of one size and task, in order: indices of at most `batch` examples each."""
    return batches_of([(example.sketch.shape, example.item.task) for example in examples], batch)


def batches_of(sizes: Sequence[Any], batch: int) -> list[list[int]]:
    """Cut items into batches of one size.

    Args:
        sizes: Of each item.
        batch: Most items in a batch.

    Returns:
        Indices of each batch's items; sizes come in the order of their first items.
    """
    by_size: dict[Any, list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    return [rows[i : i + batch] for rows in by_size.values() for i in range(0, len(rows), batch)]
