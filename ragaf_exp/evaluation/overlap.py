"""Checks of a run's own images, and of the overlap of training and test pictures."""

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

BOUND = 2000  # training items to compare: all of a small split, evenly spaced ones of a large split


def check_train_test_overlap(
    stages: dict[str, list[np.ndarray]], truth: Sequence[np.ndarray], keys: Sequence[str], training: Sequence[Item],
    bound: int = BOUND,
) -> tuple[list[str], dict[str, Any]]:  # fmt: skip
    """Warnings about sampled images, and the overlap of the training split with the test items.

    Args:
        stages: By name, the images (H,W,3) uint8 sampled for every test item, the last stage first.
        truth: The test items' own pictures.
        keys: Names of the test items.
        training: The training split.
        bound: Maximal number of training items to compare.

    Returns:
        Warnings, and counts of compared, unreadable and shared training pictures for metrics.json.
    """
    real = survey(ImageSet.arrays(truth, keys, "test images"))
    sampled = [survey(ImageSet.arrays(images, keys, f"images of {stage}")) for stage, images in stages.items()]
    warnings = [text for one in (*sampled, real) for text in warnings_of(one)] + between(sampled[0], real)
    count = min(bound, len(training))
    indices = [i * len(training) // count for i in range(count)]
    hashes = ahead(lambda index: _hash(training, index), indices)
    results = list(tqdm(hashes, total=count, desc="training images", unit="image", disable=not count))
    known = [value for value in results if value]
    shared = real.duplicates_of(known)
    counts = {"training": len(training), "compared": len(known), "unreadable": count - len(known), "shared": len(shared)}
    return warnings + overlap(real, known), counts


def _hash(training: Sequence[Item], index: int) -> str:
    try:
        return pixel_hash(training[index].image)
    except UserError:
        return ""


def check_finite(images: np.ndarray, keys: Sequence[str]) -> None:
    """Raise UserError if sampled images (B,...) hold NaN or infinity, which conversion to uint8 would turn black."""
    bad = [key for key, image in zip(keys, images, strict=True) if not np.isfinite(image).all()]
    if bad:
        raise UserError(f"{bad[0]}: its sampled image holds NaN or infinity, as {len(bad)} of {len(keys)} do; "
                        "the weights have diverged: train again with a lower optim.lr or memory.precision=no")  # fmt: skip
