"""Square crops that show one region of an image each, for a network that takes whole pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.images import ImageSet, check_picture, pixel_hash


@dataclass(frozen=True)
class PhraseRegions:
    """The regions of one image, each with its phrase of the caption. Give either labels or boxes.

    Args:
        phrases: Phrases of the caption.
        owners: (R,) index of each region's phrase; -1 for a region without one, such as the background.
        labels: (H,W) index of each pixel's region, or -1.
        boxes: (R,4) integers x0, y0, x1, y1 in pixels; the last two are exclusive.

    Raises:
        ValueError: If these don't agree with each other.
    """

    phrases: Sequence[str]
    owners: Sequence[int]
    labels: np.ndarray | None = None
    boxes: np.ndarray | Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if (self.labels is None) == (self.boxes is None):
            raise ValueError("give either labels or boxes of the regions")
        if any(not -1 <= owner < len(self.phrases) for owner in self.owners):
            raise ValueError(f"owners {list(self.owners)}: there are {len(self.phrases)} phrases, and -1 for none")
        if self.boxes is not None and np.shape(self.boxes) != (len(self.owners), 4) and len(self.owners):
            raise ValueError(f"boxes have shape {np.shape(self.boxes)}: it must be {(len(self.owners), 4)}, as the owners")


def crop(image: np.ndarray, regions: PhraseRegions, region: int, fill: Sequence[int]) -> np.ndarray:
    """Crop one region of an image to a square: its bounding box, centred on a plain background.

    The crop of a labelled region shows only the region's own pixels: CLIP would score a neighbour in the corner of the
    box instead (OVSeg masks its crops in the same way, Liang et al. 2023). Crops are square because CLIP's
    preprocessing crops the longer side.

    Args:
        image: (H,W,3) uint8.
        regions: The image's regions.
        region: Index of the region.
        fill: RGB colour of the background, 0 to 255.

    Returns:
        (S,S,3) uint8.

    Raises:
        ValueError: For labels of another size, a region without pixels, and a box outside the image.
    """
    if regions.labels is not None and np.shape(regions.labels) != image.shape[:2]:
        raise ValueError(f"labels {np.shape(regions.labels)} and image {image.shape} differ in size")
    if regions.labels is None:
        x0, y0, x1, y1 = _checked(regions.boxes[region], region, image.shape)
        return _squared(image[y0:y1, x0:x1], fill)
    mask = regions.labels == region
    x0, y0, x1, y1 = _box(mask, region)
    return _squared(np.where(mask[y0:y1, x0:x1, None], image[y0:y1, x0:x1], np.uint8(fill)), fill)


def crop_set(
    images: Sequence[np.ndarray], regions: Sequence[PhraseRegions], chosen: Sequence[tuple[int, int]], fill: Sequence[int]
) -> ImageSet:
    """The crops of some regions as a set. Each is made when it is read.

    Args:
        images: (H,W,3) uint8 each.
        regions: The regions of each image.
        chosen: Pairs of an image's and a region's index.
        fill: RGB colour of the background, 0 to 255.
    """

    def read(index: int) -> np.ndarray:
        image, region = chosen[index]
        return crop(check_picture(images[image], f"image {image}"), regions[image], region, fill)

    keys = [f"{image:06d}/{region}" for image, region in chosen]
    return ImageSet("regions", keys, read, lambda index: pixel_hash(read(index)))


def _squared(part: np.ndarray, fill: Sequence[int]) -> np.ndarray:
    height, width = part.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = fill
    y, x = (side - height) // 2, (side - width) // 2
    square[y : y + height, x : x + width] = part
    return square


def _box(mask: np.ndarray, region: int) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask)
    if not len(ys):
        raise ValueError(f"region {region} has no pixels in the labels")
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def _checked(box: np.ndarray | Sequence[int], region: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(side) for side in box)
    if [x0, y0, x1, y1] != list(box):
        raise ValueError(f"box {region} is {list(box)}: pixels are counted in integers")
    if not (0 <= x0 < x1 <= shape[1] and 0 <= y0 < y1 <= shape[0]):
        raise ValueError(f"box {region} is {list(box)}: it must lie within the image of {shape[1]}x{shape[0]} pixels")
    return x0, y0, x1, y1
