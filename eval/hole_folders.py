"""Figures of painted holes for images of any tool: pairs of image and reference, and a mask of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.images import ImageSet
from eval.metrics.holes import kept_unchanged, l1_hole, psnr_hole, ssim_hole
from eval.scoring import Values
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.lazy import LazyItems
from ragaf_exp.data.masks.read import read_mask


def holes_of(images: ImageSet, files: dict[str, Path], hole: str) -> Sequence[np.ndarray]:
    """The hole of each image, (H,W) bool.

    Args:
        images: The images.
        files: The mask of each, by key.
        hole: Which pixels are the hole, as of data.masks.read.

    Returns:
        A lazy sequence that raises UserError on access to a mask that can't be read or has another size.
    """
    return LazyItems(lambda i: _hole(files[images.keys[i]], images[i].shape[:2], hole), len(images))


def hole_values(images: ImageSet, reference: ImageSet, holes: Sequence[np.ndarray]) -> Values:
    """Score pairs within their holes, and whether all other pixels equal the reference's.

    Args:
        images: The images.
        reference: As many, of the same sizes.
        holes: (H,W) bool of each.

    Returns:
        Values by metric; None where the hole is empty.
    """
    rows = [_scores(*one) for one in zip(images, reference, holes, strict=True)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _scores(image: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> dict[str, float | None]:
    functions = {"psnr_hole": psnr_hole, "ssim_hole": ssim_hole, "l1_hole": l1_hole}
    scores = {name: score(image, truth, hole) if hole.any() else None for name, score in functions.items()}
    return scores | {"kept_unchanged": kept_unchanged(image, truth, hole)}


def _hole(path: Path, shape: tuple[int, ...], hole: str) -> np.ndarray:
    mask = read_mask(path, hole, report=False).hole
    if mask.shape != shape:
        raise UserError(f"{path}: is {mask.shape[1]}x{mask.shape[0]}, its image {shape[1]}x{shape[0]}; save the mask at "
                        "the image's size")  # fmt: skip
    return mask
