"""Sequences whose items are computed on first access."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Made = TypeVar("Made")


class LazyItems(Sequence[Made]):
    """A sequence, such as a split, whose items are made on request from their index alone, in any worker process.

    Args:
        make: Index -> item.
        length: Number of items.
        caption: Index -> the item's caption, where that is known without making the item.
        sizes: Height and width of each item's image, where they differ.
    """

    def __init__(
        self, make: Callable[[int], Made], length: int, caption: Callable[[int], str] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self._make, self._length, self._caption, self.sizes = make, length, caption, sizes

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Made:
        """Make the item at `index`; negative counts from the end. Raises IndexError outside the split."""
        position = index + self._length if index < 0 else index
        if not 0 <= position < self._length:
            raise IndexError(f"index {index} outside a split of {self._length}")
        return self._make(position)

    def caption(self, index: int) -> str:
        """Return an item's caption, without making the item where its source knows it."""
        return self._caption(index) if self._caption else self[index].caption

    def captions(self, count: int) -> list[str]:
        """Return the captions of the first `count` items, or of all where there are fewer."""
        return [self.caption(index) for index in range(min(count, self._length))]
