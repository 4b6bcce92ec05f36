"""Checks of image sets that run before any metric is computed.

They raise an error where a figure would not measure what the user asked for, and warn where it would be correct but
easy to misread. Every picture that is left out is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.images import ImageSet, ahead
from eval.scan import Survey, survey
from ragaf_exp.core.errors import UserError

ENOUGH = 2048  # images, below which a Frechet distance is mostly its bias
SHOWN = 3  # names in a message
CLIPPED, USUAL = 0.25, 0.05  # shares of values that are 0: of clipped and of ordinary images


@dataclass(frozen=True)
class Guarded:
    """Sets without their damaged pictures, warnings about them, and counts for metrics.json."""

    images: ImageSet
    reference: ImageSet | None
    warnings: list[str]
    counts: dict[str, Any]


def guard(
    images: ImageSet, reference: ImageSet | None = None, training: Iterable[str] = (), skip_damaged: bool = False
) -> Guarded:
    """Check every picture of both sets once.

    Args:
        images: The set to be scored.
        reference: The set that it is compared with; None if there is none.
        training: `pixel_hash` of the training set's pictures.
        skip_damaged: Whether damaged files are skipped and counted instead of raised.

    Returns:
        Both sets without their damaged pictures, warnings and counts.

    Raises:
        UserError: For damaged files, arrays that are not uint8 RGB, sets of fewer than 2 pictures, sets of constant or
            equal pictures only, and sets with the values 0 and 1 only.
    """
    surveys = [survey(s) for s in (images, reference) if s is not None]
    for one in surveys:
        raise_if_damaged(one, skip_damaged)
    warnings = [w for one in surveys for w in warnings_of(one)]
    if reference is not None:
        warnings += between(*surveys) + overlap(surveys[1], training)
    usable = [s.subset([picture.index for picture in one.pictures])
              for s, one in zip((images, reference), surveys, strict=False)]  # fmt: skip
    counts = {"images": tally(images, surveys[0])}
    if reference is not None:
        counts["reference"] = tally(reference, surveys[1])
    return Guarded(usable[0], usable[1] if reference is not None else None, warnings, counts)


def raise_if_damaged(scanned: Survey, skip_damaged: bool = False) -> None:
    """Raise UserError if a set can't be scored. Damaged files raise it unless `skip_damaged`."""
    name, count = scanned.name, len(scanned.pictures)
    if scanned.damaged and not skip_damaged:
        more = f" ({len(scanned.damaged)} such files in all)" if len(scanned.damaged) > 1 else ""
        raise UserError(f"{next(iter(scanned.damaged.values()))}{more}")
    if count < 2:
        raise UserError(f"{name}: {count} usable images of {count + len(scanned.damaged)}; a set needs at least 2")
    if len(scanned.constant) == count:
        raise UserError(f"{name}: all {count} images are of one colour each; look at how they were made")
    if len(scanned.repeated()) == count - 1:
        raise UserError(f"{name}: all {count} images are equal; look at how they were made")
    if max(picture.high for picture in scanned.pictures) <= 1:
        raise UserError(f"{name}: no value is above 1; images in [0, 1] must be multiplied by 255 before they are saved")


def warnings_of(scanned: Survey) -> list[str]:
    """Warnings about one set."""
    texts = []
    if scanned.damaged:
        texts.append(f"{len(scanned.damaged)} damaged images are skipped ({_some(list(scanned.damaged))})")
    if scanned.constant:
        texts.append(f"{len(scanned.constant)} images are of one colour ({_some(scanned.constant)})")
    if again := scanned.repeated():
        texts.append(f"{len(again)} images equal an earlier one of the set ({_some(again)}); they count again")
    if len(scanned.sizes) > 1:
        texts.append(f"images of {len(scanned.sizes)} sizes ({_some(scanned.sizes)}); each is resized on its own")
    if min(picture.low for picture in scanned.pictures) >= 127:
        texts.append("no value is below 127: were images in [0, 1] saved as if they were in [-1, 1]?")
    return [f"{scanned.name}: {text}" for text in texts]


def between(images: Survey, reference: Survey) -> list[str]:
    """Warnings about two sets that are compared with each other."""
    texts = []
    if shared := images.duplicates_of(picture.hash for picture in reference.pictures):
        texts.append(f"{len(shared)} of {len(images.pictures)} images are in the reference {reference.name} too, pixel by "
                    f"pixel ({_some(shared)}); distances to it are too small")  # fmt: skip
    if images.sizes[0] != reference.sizes[0]:
        texts.append(f"images are {_some(images.sizes)}, the reference's {_some(reference.sizes)}; "
                     "distances measure that too")  # fmt: skip
    if images.black > CLIPPED and reference.black < USUAL:
        texts.append(f"{images.black:.0%} of all values are 0, of the reference's {reference.black:.0%}: were images in "
                    "[-1, 1] saved as if they were in [0, 1]?")  # fmt: skip
    return [f"{images.name}: {text}" for text in texts]


def overlap(reference: Survey, training: Iterable[str]) -> list[str]:
    """A warning if the reference holds pictures of the training set, which are given by their `pixel_hash`."""
    shared = reference.duplicates_of(training)
    if not shared:
        return []
    return [f"{reference.name}: {len(shared)} of {len(reference.pictures)} images are in the training set "
            f"({_some(shared)}); distances to them reward memorisation; use held-out images"]  # fmt: skip


def tally(images: ImageSet, scanned: Survey) -> dict[str, Any]:
    """Counts of a set for metrics.json."""
    return {
        "set": images.name, "found": len(images), "used": len(scanned.pictures), "skipped": len(scanned.damaged),
        "skipped_keys": list(scanned.damaged)[:20], "other_files": len(images.others),
        "constant": len(scanned.constant), "repeated": len(scanned.repeated()),
    }  # fmt: skip


def small_sample_warning(count: int, reference: int, dim: int) -> str | None:
    """The warning about a Frechet distance of few images.

    Args:
        count: Number of images.
        reference: Number of reference images.
        dim: Dimensions of the features.

    Returns:
        One line; None if both sets are large enough.
    """
    fewest = min(count, reference)
    if fewest > dim and fewest >= ENOUGH:
        return None
    text = f"{fewest:,} images: the distance is biased upwards below {ENOUGH:,}; compare it at equal counts only"
    if fewest <= dim:
        text += f"; and fewer than {dim + 1:,} leave the covariance of {dim:,} features singular"
    return text


def matched(
    images: ImageSet, reference: ImageSet, alike: bool = True
) -> tuple[ImageSet, ImageSet, dict[str, int]]:  # fmt: skip
    """Pair the pictures of two sets by key.

    Args:
        images: The set that gives the order.
        reference: The other set.
        alike: Whether both pictures of a pair must have the same size.

    Returns:
        The paired pictures of both sets, and the counts of pairs and of unpaired pictures of each set.

    Raises:
        UserError: If the sets share no key, or if the sizes of a pair differ.
    """
    index = {key: i for i, key in enumerate(reference.keys)}
    both = [i for i, key in enumerate(images.keys) if key in index]
    if not both:
        raise UserError(f"{images.name} and {reference.name}: no two files of one name (such as {images.keys[0]} and "
                        f"{reference.keys[0]}); pairs go by name without suffix")  # fmt: skip
    first, second = images.subset(both), reference.subset(index[images.keys[i]] for i in both)
    if alike and (reason := sizes_apart(first, second)):
        raise UserError(reason)
    left = {"pairs": len(both), "unpaired": len(images) - len(both), "unpaired_reference": len(reference) - len(both)}
    return first, second, left


def sizes_apart(first: ImageSet, second: ImageSet) -> str:
    """The pairs of two matched sets that differ in size and how to fix them, as one line; "" if none do."""
    shapes = (ahead(lambda i, s=s: s[i].shape, range(len(s))) for s in (first, second))
    apart = [(key, one, other) for key, one, other in zip(first.keys, *shapes, strict=True) if one != other]
    if not apart:
        return ""
    key, one, other = apart[0]
    more = f" and {len(apart) - 1} more pairs of {len(first)} too" if len(apart) > 1 else ""
    return (f"{key}: {one[1]}x{one[0]} in {first.name}, {other[1]}x{other[0]} in {second.name}{more}; "
            "resize one of the sets")  # fmt: skip


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
