"""Assignment of items to splits by the hash of their names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from ragaf_exp.core.errors import UserError
from ragaf_exp.data.listing import in_short

SPLITS = ("train", "val", "test")
FEW = 10  # names, below which empty splits are filled


def split_id(name: str) -> int:
    """Return the number of a split: 0 train, 1 val, 2 test. Raises UserError for another name."""
    if name not in SPLITS:
        raise UserError(f"data split {name!r} is unknown; take one of {', '.join(SPLITS)}")
    return SPLITS.index(name)


def hash_share(name: str) -> float:
    """Hash a source item's name (sha256) to a number in [0, 1), the same on every host and permanently."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:6], "big") / 2**48


def split_of(name: str, val_share: float, test_share: float) -> str:
    """Assign a source item to a split: test takes the lowest hashes, then val, then train.

    Args:
        name: The item's name.
        val_share: Share of val, in [0, 1).
        test_share: Share of test, in [0, 1).
    """
    return _split_at(hash_share(name), val_share, test_share)


def _split_at(share: float, val_share: float, test_share: float) -> str:
    return "test" if share < test_share else "val" if share < test_share + val_share else "train"


def split_lists(
    names: Sequence[str], val_share: float, test_share: float, given: Mapping[str, str] | None = None
) -> tuple[dict[str, list[str]], list[str]]:
    """Assign names to splits, and fill splits that the hash leaves empty if there are few names.

    With fewer than FEW names, an empty split takes the nearest name in hash order from the split next to it: as few as
    possible change, the same ones on every host. Of two names, val and test share one; a single name is in all splits.
    With more names, none ever changes its split, and a split may be empty (see `working_shares`). A split whose share
    is 0 stays empty.

    Args:
        names: Distinct names of the source's items.
        val_share: Share of the names without a given split, in [0, 1).
        test_share: Likewise; the two shares sum to less than 1.
        given: Name -> split, where the source itself defines it. The shares of val and test are ignored if the source
            has that split.

    Returns:
        Names by split, in the order of their hashes, and the names of the splits that were filled.
    """
    given = given or {}
    lists: dict[str, list[str]] = {split: [name for name in names if given.get(name) == split] for split in SPLITS}
    hashes = {name: hash_share(name) for name in names if given.get(name) not in ("val", "test")}
    pool = sorted(hashes, key=lambda n: (hashes[n], n))
    shares = [0.0 if lists[split] else share for split, share in (("test", test_share), ("val", val_share))]
    by_hash: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in pool:
        by_hash[_split_at(hashes[name], shares[1], shares[0])].append(name)
    few = len(pool) < FEW
    taken = _filled(pool, len(by_hash["test"]), len(by_hash["val"]), *(share > 0 for share in shares)) if few else by_hash
    filled = [split for split in SPLITS if taken[split] and not by_hash[split]]
    return {split: taken[split] or lists[split] for split in SPLITS}, filled


def _filled(order: list[str], test: int, val: int, needs_test: bool, needs_val: bool) -> dict[str, list[str]]:
    """Cut names in hash order into test, val and train, with no needed split empty if possible."""
    if len(order) <= needs_test + needs_val:
        rest = order[:1]  # with one or two names, val and test share one, which with a single name is trained on too
        return {"train": order[-1:], "val": rest if needs_val else [], "test": rest if needs_test else []}
    first = max(test, needs_test)
    second = min(max(test + val, first + needs_val), len(order) - 1)
    first = min(first, second - needs_val)
    return {"train": order[second:], "val": order[first:second], "test": order[:first]}


def working_shares(names: Sequence[str], val_share: float, test_share: float) -> tuple[float, float] | None:
    """Compute the smallest shares of val and test that leave no split empty.

    Args:
        names: The items' names.
        val_share: Lower bound of val's share; 0 stays 0, as nothing is held out for that split.
        test_share: Likewise for test.

    Returns:
        Shares of val and test, or None if there are none.
    """
    hashes = sorted(map(hash_share, names))
    test = test_share and max(test_share, _above(hashes[0]))
    left = [share for share in hashes if share >= test]
    val = val_share and max(val_share, _above(left[0] - test) if left else 1.0)
    return (val, test) if hashes[-1] >= test + val else None


def _above(share: float) -> float:
    """Return the next larger number of three decimals."""
    return round((int(share * 1000) + 1) / 1000, 3)


def remark(splits: Mapping[str, Sequence[str]], filled: Sequence[str]) -> str:
    """Describe splits that were filled, as a warning; "" if the hash gave each split its own names."""
    of = {split: set(splits[split]) for split in SPLITS}
    if trained := of["train"] & (of["val"] | of["test"]):
        where = " and ".join(split for split in ("val", "test") if of[split] & trained)
        return (f"too few images to split: {where} hold {in_short(sorted(trained))}, which is trained on, so that metrics "
                "measure memorisation, not generalisation to other images; give at least 3")  # fmt: skip
    if shared := of["val"] & of["test"]:
        return f"too few images to split: val and test share {in_short(sorted(shared))}; give at least 3"
    names = ", ".join(f"{in_short(splits[split])} ({split})" for split in filled)
    return names and f"few images, so that a split was empty; filled in the order of hashes: {names}"


def check_shares(val_share: float, test_share: float) -> None:
    """Raise UserError unless both shares are in [0, 1) and leave something to train on."""
    for key, share in (("val_share", val_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise UserError(f"data.{key}={share}: must be at least 0 and below 1; take 0.1")
    if val_share + test_share >= 1:
        raise UserError(f"data.val_share={val_share}: together with data.test_share={test_share} must be below 1")


def check_size(size: int, key: str = "size") -> None:
    """Raise UserError unless `size`, the value of data.KEY, is a multiple of 4 in [16, 2048]."""
    if size % 4 or not 16 <= size <= 2048:
        better = min(max(4 * round(size / 4), 16), 2048)
        raise UserError(f"data.{key}={size}: must be a multiple of 4 from 16 to 2048; take {better}")


def check_counts(**counts: int) -> None:
    """Raise UserError if a number of items is negative."""
    for key, count in counts.items():
        if count < 0:
            raise UserError(f"data.{key}={count}: must be 0 or more")
