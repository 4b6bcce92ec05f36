"""Which split an item belongs to, and the lazy sequence that a split is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ragaf_exp.errors import UserError

Made = TypeVar("Made")
SPLITS = ("train", "val", "test")


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


def split_id(name: str) -> int:
    """The number of a split: 0 train, 1 val, 2 test. Raises UserError for another name."""
    if name not in SPLITS:
        raise UserError(f"data split {name!r} is unknown; take one of {', '.join(SPLITS)}")
    return SPLITS.index(name)


def hash_share(name: str) -> float:
    """A stable number in [0, 1) from a source item's name (sha256), the same on every host and for ever."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:6], "big") / 2**48


def split_of(name: str, val_share: float, test_share: float) -> str:
    """The split of a source item: test takes the lowest hashes, then val, then train."""
    at = hash_share(name)
    return "test" if at < test_share else "val" if at < test_share + val_share else "train"


def split_names(names: Iterable[str], split: str, val_share: float, test_share: float) -> list[str]:
    """The names that belong to `split`, in their order."""
    split_id(split)
    return [name for name in names if split_of(name, val_share, test_share) == split]


def check_shares(val_share: float, test_share: float) -> None:
    """Raises UserError unless both shares are in [0, 1) and leave something to train on."""
    for key, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise UserError(f"data.{key}={share}: must be at least 0 and below 1; take 0.1")
    if val_share + test_share >= 1:
        raise UserError(
            f"data.val_share={val_share}: together with data.test_share={test_share} must be below 1"
        )


def check_size(size: int) -> None:
    """Raises UserError unless `size` is a multiple of 4 in [16, 2048]."""
    if size % 4 or not 16 <= size <= 2048:
        better = min(max(4 * round(size / 4), 16), 2048)
        raise UserError(f"data.size={size}: must be a multiple of 4 from 16 to 2048; take {better}")


def check_counts(**counts: int) -> None:
    """Raises UserError where a number of items is negative."""
    for key, count in counts.items():
        if count < 0:
            raise UserError(f"data.{key}={count}: must be 0 or more")
