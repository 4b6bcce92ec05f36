"""Guard rails: what is wrong with a set of pictures is found before anything is computed of it, and named.

An error is raised where figures would be of something else than what was asked for; a warning stands where they are
right but say less than they seem to. Nothing is left out without being counted.
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
CLIPPED, USUAL = 0.25, 0.05  # shares of values that are 0


@dataclass(frozen=True)
class Guarded:
    """Sets without their damaged pictures, what is to be said of them, and counts for metrics.json."""

    images: ImageSet
    reference: ImageSet | None
    warnings: list[str]
    counts: dict[str, Any]


def guard(
    images: ImageSet, reference: ImageSet | None = None, training: Iterable[str] = (), skip_damaged: bool = False
) -> Guarded:
    """Look at every picture of both sets once. training: pixel_hash of the training set's pictures.

    UserError for damaged files (unless they are to be skipped and counted), arrays that are no uint8 RGB, sets of fewer
    than 2 pictures, of constant or equal pictures only, or with values 0 and 1 only.
    """
    surveys = [survey(s) for s in (images, reference) if s is not None]
    for one in surveys:
        raise_if_damaged(one, skip_damaged)
    warnings = [w for one in surveys for w in warnings_of(one)]
    if reference is not None:
        warnings += between(*surveys) + overlap(surveys[1], training)
    kept = [s.subset([look.place for look in one.looks]) for s, one in zip((images, reference), surveys, strict=False)]
    counts = {"images": tally(images, surveys[0])}
    if reference is not None:
        counts["reference"] = tally(reference, surveys[1])
    return Guarded(kept[0], kept[1] if reference is not None else None, warnings, counts)


def raise_if_damaged(found: Survey, skip_damaged: bool = False) -> None:
    """UserError for what no figure should be made of."""
    name, count = found.name, len(found.looks)
    if found.damaged and not skip_damaged:
        more = f" ({len(found.damaged)} such files in all)" if len(found.damaged) > 1 else ""
        raise UserError(f"{next(iter(found.damaged.values()))}{more}")
    if count < 2:
        raise UserError(f"{name}: {count} usable images of {count + len(found.damaged)}; a set needs at least 2")
    if len(found.constant) == count:
        raise UserError(f"{name}: all {count} images are of one colour each; look at how they were made")
    if len(found.repeated()) == count - 1:
        raise UserError(f"{name}: all {count} images are equal; look at how they were made")
    if max(look.high for look in found.looks) <= 1:
        raise UserError(f"{name}: no value is above 1; images in [0, 1] must be multiplied by 255 before they are saved")


def warnings_of(found: Survey) -> list[str]:
    """What is odd about one set."""
    said = []
    if found.damaged:
        said.append(f"{len(found.damaged)} damaged images are skipped ({_some(list(found.damaged))})")
    if found.constant:
        said.append(f"{len(found.constant)} images are of one colour ({_some(found.constant)})")
    if again := found.repeated():
        said.append(f"{len(again)} images equal an earlier one of the set ({_some(again)}); they count again")
    if len(found.sizes) > 1:
        said.append(f"images of {len(found.sizes)} sizes ({_some(found.sizes)}); each is resized by itself")
    if min(look.low for look in found.looks) >= 127:
        said.append("no value is below 127: were images in [0, 1] saved as if they were in [-1, 1]?")
    return [f"{found.name}: {text}" for text in said]


def between(images: Survey, reference: Survey) -> list[str]:
    """What makes two sets hard to compare."""
    said = []
    if shared := images.duplicates_of(look.hash for look in reference.looks):
        said.append(f"{len(shared)} of {len(images.looks)} images are in the reference {reference.name} too, pixel by "
                    f"pixel ({_some(shared)}); distances to it are too small")  # fmt: skip
    if images.sizes[0] != reference.sizes[0]:
        said.append(f"images are {_some(images.sizes)}, the reference's {_some(reference.sizes)}; distances see that, too")
    if images.black > CLIPPED and reference.black < USUAL:
        said.append(f"{images.black:.0%} of all values are 0, of the reference's {reference.black:.0%}: were images in "
                    "[-1, 1] saved as if they were in [0, 1]?")  # fmt: skip
    return [f"{images.name}: {text}" for text in said]


def overlap(reference: Survey, training: Iterable[str]) -> list[str]:
    """Whether the reference holds pictures of the training set, given by their pixel_hash."""
    seen = reference.duplicates_of(training)
    if not seen:
        return []
    return [f"{reference.name}: {len(seen)} of {len(reference.looks)} images are in the training set ({_some(seen)}); "
            "distances to them reward memory; take images held out"]  # fmt: skip


def tally(images: ImageSet, found: Survey) -> dict[str, Any]:
    """Counts of a set for metrics.json: nothing is left out silently."""
    return {
        "set": images.name, "found": len(images), "used": len(found.looks), "skipped": len(found.damaged),
        "skipped_keys": list(found.damaged)[:20], "other_files": len(images.others),
        "constant": len(found.constant), "repeated": len(found.repeated()),
    }  # fmt: skip


def small_sample_warning(count: int, reference: int, dim: int) -> str | None:
    """The warning that belongs beside a Frechet distance of so many images with features of so many dimensions."""
    fewest = min(count, reference)
    if fewest > dim and fewest >= ENOUGH:
        return None
    said = f"{fewest:,} images: the distance is biased upwards below {ENOUGH:,}; compare it at equal counts only"
    if fewest <= dim:
        said += f"; and fewer than {dim + 1:,} leave the covariance of {dim:,} features singular"
    return said


def matched(
    images: ImageSet, reference: ImageSet, alike: bool = True
) -> tuple[ImageSet, ImageSet, dict[str, int]]:  # fmt: skip
    """The pictures whose keys both sets have, in the order of `images`, and how many are left out of either.

    Args:
        images: The set whose order is taken.
        reference: The other set.
        alike: Whether the pictures of a pair must be of one size.

    Raises:
        UserError: Where the sets share no key, or where a pair differs in size.
    """
    places = {key: i for i, key in enumerate(reference.keys)}
    both = [i for i, key in enumerate(images.keys) if key in places]
    if not both:
        raise UserError(f"{images.name} and {reference.name}: no two files of one name (such as {images.keys[0]} and "
                        f"{reference.keys[0]}); pairs go by name without suffix")  # fmt: skip
    first, second = images.subset(both), reference.subset(places[images.keys[i]] for i in both)
    if alike and (reason := sizes_apart(first, second)):
        raise UserError(reason)
    left = {"pairs": len(both), "unpaired": len(images) - len(both), "unpaired_reference": len(reference) - len(both)}
    return first, second, left


def sizes_apart(first: ImageSet, second: ImageSet) -> str:
    """Which of the pairs of two matched sets differ in size, and what to do; "" where none does."""
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
