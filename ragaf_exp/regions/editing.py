"""Editing of regions by hand: merge, split, delete, paint. Label maps in, regions and where each came from out.

Every region of the result has the index of the region that it came from, so that prompts, locks and colours follow it
through a renumbering.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Regions
from ragaf_exp.regions.borders import by_area, contract, crossings
from ragaf_exp.regions.hierarchy import nest

LEVELS = 4  # of nesting, as regions.levels
MOST = 1024  # regions of a picture, as at most in regions.max_regions
Edited: TypeAlias = tuple[Regions, np.ndarray]  # came (N,) int64: the old index of each region, -1 = new


def rebuild(labels: np.ndarray, most: int = MOST, levels: int = LEVELS) -> Edited:
    """Number the regions of any label map by area, with background and containment.

    Args:
        labels: (H,W) integers; each value of 0 or more is a region, which need not be connected, below 0 is none.
        most: Largest number of regions.
        levels: Largest depth of containment.

    Returns:
        The regions, and the value in `labels` of each.

    Raises:
        UserError: There are more than `most` regions.
    """
    values, places = np.unique(labels[labels >= 0], return_inverse=True)
    if len(values) > most:
        raise UserError(f"regions.max_regions={most}: {len(values)} regions are more; merge some first")
    number = by_area(np.bincount(places, minlength=len(values)))
    numbered = np.full(labels.shape, -1, np.int16)
    numbered[labels >= 0] = number[places]
    came = values[np.argsort(number)].astype(np.int64)
    count = len(values)
    if count == 0:
        nothing = np.zeros(0, np.int16)
        return Regions(numbered, 0, -1, nothing, nothing), came
    straight, diagonal = crossings(numbered, count)
    touching = contract(straight + diagonal, np.arange(count + 1)) > 0
    return Regions(numbered, count, _background(numbered, count), *nest(touching, levels)), came


def merge(regions: Regions, which: Collection[int], most: int = MOST) -> Edited:
    """Make one region of several, which need not touch; it came from the largest of them.

    Args:
        regions: The regions.
        which: At least two indices.
        most: Largest number of regions.

    Raises:
        UserError: An index does not exist, or there is only one.
    """
    chosen = _chosen(regions, which, 2)
    labels = regions.labels.astype(np.int64)
    labels[np.isin(labels, chosen)] = chosen[0]  # regions are numbered by area
    return rebuild(labels, most)


def split(regions: Regions, which: int, line: Sequence[tuple[float, float]], most: int = MOST) -> Edited:
    """Cut a region along a line into its 4-connected parts; the largest part came from it, the others are new.

    Args:
        regions: The regions.
        which: Index of the region.
        line: Points (x, y) in pixels. Pixels under the line join the nearest part.
        most: Largest number of regions.

    Raises:
        UserError: The index does not exist, the line has fewer than two points or does not part the region, or there
            would be more than `most` regions.
    """
    (chosen,) = _chosen(regions, [which], 1)
    if len(line) < 2:
        raise UserError(f"split of region {chosen}: the line needs at least two points")
    labels = regions.labels.astype(np.int64)
    inside = labels == chosen
    cut = inside & _drawn(line, labels.shape)
    parts, pieces = _parts(inside & ~cut)
    before = _parts(inside)[0]
    if parts <= max(before, 1):
        raise UserError(f"split of region {chosen}: the line does not part it; draw it from border to border")
    pieces = np.where(inside, _nearest(pieces, inside), 0)
    order = np.argsort(-np.bincount(pieces[inside], minlength=parts + 1)[1:], kind="stable") + 1
    for i, piece in enumerate(order[1:]):
        labels[pieces == piece] = regions.count + i
    return _fresh(rebuild(labels, most), regions.count)


def delete(regions: Regions, which: Collection[int], most: int = MOST) -> Edited:
    """Give each of some regions to the remaining neighbour with the longest common border.

    A region without a remaining neighbour becomes no region.

    Args:
        regions: The regions.
        which: Indices; at least one region must remain.
        most: Largest number of regions.

    Raises:
        UserError: An index does not exist, or no region would remain.
    """
    chosen = _chosen(regions, which, 1)
    if len(chosen) == regions.count:
        raise UserError("delete: at least one region must remain")
    labels = regions.labels.astype(np.int64)
    left = list(chosen)
    while left:
        straight, _ = crossings(labels, regions.count)
        borders = straight[: regions.count, : regions.count].copy()
        borders[:, left] = 0
        joining = [i for i in left if borders[i].any()]
        for i in joining or left:
            labels[labels == i] = borders[i].argmax() if joining else -1
        left = [i for i in left if joining and i not in joining]
    return rebuild(labels, most)


def paint(regions: Regions, mask: np.ndarray, into: int | None = None, most: int = MOST) -> Edited:
    """Assign pixels to a region, or to a new one; regions that lose all their pixels vanish.

    Args:
        regions: The regions.
        mask: (H,W) bool, the pixels.
        into: Index of the region; None for a new one.
        most: Largest number of regions.

    Raises:
        UserError: The index does not exist, the mask has another size or is empty, or there would be too many regions.
    """
    if mask.shape != regions.labels.shape or not mask.any():
        raise UserError(f"paint: the mask must have pixels and the size {regions.labels.shape}")
    labels = regions.labels.astype(np.int64)
    labels[mask] = regions.count if into is None else _chosen(regions, [into], 1)[0]
    return _fresh(rebuild(labels, most), regions.count)


def _chosen(regions: Regions, which: Collection[int], least: int) -> list[int]:
    chosen = sorted(set(which))
    for index in chosen:
        if not 0 <= index < regions.count:
            raise UserError(f"region {index}: there are regions 0 to {regions.count - 1}")
    if len(chosen) < least:
        raise UserError(f"regions {chosen}: name at least {least}")
    return chosen


def _fresh(edited: Edited, count: int) -> Edited:
    """Mark regions whose label was not one of the first `count` as new."""
    regions, came = edited
    return regions, np.where(came < count, came, -1)


def _background(labels: np.ndarray, count: int) -> int:
    """The region with most pixels on the picture's border, or the largest if none has any."""
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return int(np.bincount(rim[rim >= 0], minlength=count).argmax())


def _drawn(line: Sequence[tuple[float, float]], shape: tuple[int, ...]) -> np.ndarray:
    """(H,W) bool: the pixels under a polyline, 4-connected so that nothing passes through it."""
    canvas = np.zeros(shape, np.uint8)
    points = np.rint(np.asarray(line, np.float64)).clip(-32768, 32767).astype(np.int32)
    cv2.polylines(canvas, [points], isClosed=False, color=1, thickness=1, lineType=cv2.LINE_4)
    return canvas > 0


def _parts(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """The number of 4-connected parts of a mask, and the part (H,W) of each pixel, from 1; 0 outside."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    return count - 1, parts


def _nearest(parts: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The parts, with 0 inside the region replaced by the nearest part."""
    missing = inside & (parts == 0)
    _, near = cv2.distanceTransformWithLabels(
        (parts == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(near.max() + 1, parts.dtype)
    owner[near[parts > 0]] = parts[parts > 0]
    return np.where(missing, owner[near], parts)
