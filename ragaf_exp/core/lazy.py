"""Sequences whose items are computed on first access."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Made = TypeVar("Made")


class LazyItems(Sequence[Made]):
    """A split, or anything made on request from its index alone, so that any worker may make any of them."""

    def __init__(self, make: Callable[[int], Made], length: int, caption: Callable[[int], str] | None = None) -> None:
        """caption: an item's, where it is known without making the item."""
        self._make, self._length, self._caption = make, length, caption

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Made:
        """The item at `index`; negative counts from the end. Raises IndexError outside the split."""
        at = index + self._length if index < 0 else index
        if not 0 <= at < self._length:
            raise IndexError(f"index {index} outside a split of {self._length}")
        return self._make(at)

    def captions(self, count: int) -> list[str]:
        """Of the first `count` items, or of all where there are fewer."""
        told = self._caption or (lambda at: self[at].caption)
        return [told(at) for at in range(min(count, self._length))]
