"""Guard rails of a run's own images: what is odd about them, and whether training saw the test items' pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from eval.checks import between, overlap, warnings_of
from eval.images import ImageSet, ahead, pixel_hash
from eval.scan import survey
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Item

BOUND = 2000  # training items that are looked at: all of a small split, some of a large one, evenly spread


def look(
    stages: dict[str, list[np.ndarray]], truth: Sequence[np.ndarray], keys: Sequence[str], training: Sequence[Item],
    bound: int = BOUND,
) -> tuple[list[str], dict[str, Any]]:  # fmt: skip
    """Warnings, and for metrics.json how many of the training split's pictures were compared with the test items'.

    stages: by name, the images (H,W,3) uint8 drawn of every test item, the last stage first. truth: the items' own.
    A training picture that can't be read is counted.
    """
    real = survey(ImageSet.arrays(truth, keys, "test images"))
    drawn = [survey(ImageSet.arrays(images, keys, f"images of {stage}")) for stage, images in stages.items()]
    warnings = [said for one in (*drawn, real) for said in warnings_of(one)] + between(drawn[0], real)
    count = min(bound, len(training))
    places = [i * len(training) // count for i in range(count)]
    hashes = ahead(lambda place: _hash(training, place), places)
    found = list(tqdm(hashes, total=count, desc="training images", unit="image", disable=not count))
    known = [value for value in found if value]
    shared = real.duplicates_of(known)
    counts = {"training": len(training), "compared": len(known), "unreadable": count - len(known), "shared": len(shared)}
    return warnings + overlap(real, known), counts


def _hash(training: Sequence[Item], place: int) -> str:
    try:
        return pixel_hash(training[place].image)
    except UserError:
        return ""


def check_finite(images: np.ndarray, keys: Sequence[str]) -> None:
    """UserError where images (B,...) drawn of these items hold NaN or infinity, which uint8 would turn into black."""
    bad = [key for key, image in zip(keys, images, strict=True) if not np.isfinite(image).all()]
    if bad:
        raise UserError(f"{bad[0]}: the image drawn of it holds NaN or infinity, as {len(bad)} of {len(keys)} do; "
                        "the weights have diverged: train again with a lower optim.lr or memory.precision=no")  # fmt: skip
