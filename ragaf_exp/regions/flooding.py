"""Areas between strokes, separated at gaps by flooding a depth map from the deepest pixels.

A ball too big for a gap can't leave an area through it (trapped balls: Zhang, Chen, Zhang, Hu and Martin, "Vectorizing
cartoon animations", 2009). Rolling balls of every size, the largest first, is equivalent to flooding the map of
distances to the nearest stroke: two basins meet where the largest ball that passes between them is as wide as the
opening. Whether that is a gap or a neck depends on how much deeper both basins are (the persistence of the saddle).
"""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.jit import compiled

NEVER = 255  # a depth that no basin has
RIM = -1  # owner of the pixels around the picture


@compiled
def flood(depth: np.ndarray, need: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Partition a depth map into basins.

    Every basin is 4-connected, and an area that strokes enclose is never lost, however thin. A pixel between two basins
    belongs to that of its deepest neighbour.

    Args:
        depth: (H,W) uint8 below 255, 0 = stroke.
        need: (2,256) uint8. Two basins that first meet at depth s stay separate if both are at least need[k,s] deep
            (255 = never), and are merged otherwise; k = 1 if exactly one of them has reached the picture's rim, else 0.
        most: Number of basins to return, the largest.

    Returns:
        Labels (H,W) int16, the largest basin first, -1 = stroke or a smaller basin; areas (M,) int64.
    """
    height, width = depth.shape
    stride = width + 2
    deep = np.zeros((height + 2) * stride, np.uint8)
    owner = np.full(len(deep), RIM, np.int32)
    for y in range(height):
        start = (y + 1) * stride + 1
        deep[start : start + width], owner[start : start + width] = depth[y], 0
    order = _deepest_first(deep)
    joined, peak = np.zeros(len(order) + 1, np.int32), np.zeros(len(order) + 1, np.uint8)
    at_rim, basins = np.zeros(len(joined), np.bool_), 0
    for place in order:
        up, left, right, down = owner[place - stride], owner[place - 1], owner[place + 1], owner[place + stride]
        rim = min(min(up, left), min(right, down)) == RIM
        best = max(max(up, left), max(right, down))
        if best <= 0:
            basins += 1
            best = basins
            joined[best], peak[best] = best, deep[place]
        elif _differ(up, left, right, down, best):
            up, left, right, down = _root(joined, up), _root(joined, left), _root(joined, right), _root(joined, down)
            best = max(max(up, left), max(right, down))
            if _differ(up, left, right, down, best):
                best = _meet(joined, peak, at_rim, owner, deep, place, stride, need)
        owner[place] = best
        if rim:
            at_rim[_root(joined, best)] = True
    number, area = _by_area(joined, _areas(owner, basins), most)
    labels = np.empty((height, width), np.int16)
    for y in range(height):
        for x in range(width):
            labels[y, x] = number[owner[(y + 1) * stride + x + 1]]
    return labels, area


@compiled
def _differ(up: int, left: int, right: int, down: int, best: int) -> bool:
    """Whether a neighbour has an owner, and one other than `best`."""
    # Without `or`: the branch would be mispredicted for every other pixel.
    return (
        ((up > 0) & (up != best)) | ((left > 0) & (left != best))
        | ((right > 0) & (right != best)) | ((down > 0) & (down != best))
    )  # fmt: skip


@compiled
def _meet(
    joined: np.ndarray, peak: np.ndarray, at_rim: np.ndarray, owner: np.ndarray, deep: np.ndarray, place: int,
    stride: int, need: np.ndarray,
) -> int:  # fmt: skip
    """Return the basin of a pixel's deepest neighbour (on a tie the shallower one); basins without a gap to it join it."""
    best, deepest = 0, 0
    for step in (-stride, -1, 1, stride):
        one, level = _root(joined, owner[place + step]), deep[place + step]
        if one > 0 and (level > deepest or (level == deepest and peak[one] < peak[best])):
            best, deepest = one, level
    for step in (-stride, -1, 1, stride):
        other = _root(joined, owner[place + step])
        if other > 0 and other != best:
            across = int(at_rim[best] != at_rim[other])
            if min(peak[best], peak[other]) < need[across, deep[place]]:
                joined[other] = best
                peak[best] = max(peak[best], peak[other])
                at_rim[best] |= at_rim[other]
    return best


@compiled
def _deepest_first(deep: np.ndarray) -> np.ndarray:
    """Sort the indices of a flat map's open pixels (above 0) by falling depth, by a stable counting sort: (P,) int32."""
    levels, start, total = np.zeros(256, np.int64), np.zeros(256, np.int64), 0
    for value in deep:
        levels[value] += 1
    for value in range(255, 0, -1):
        start[value] = total
        total += levels[value]
    order = np.empty(total, np.int32)
    for place in range(len(deep)):
        value = deep[place]
        if value:
            order[start[value]] = place
            start[value] += 1
    return order


@compiled
def _root(joined: np.ndarray, basin: int) -> int:
    """Return the basin that a basin has been merged into; 0 and RIM are returned unchanged."""
    if basin <= 0:
        return basin
    while joined[basin] != basin:
        joined[basin] = joined[joined[basin]]
        basin = joined[basin]
    return basin


@compiled
def _areas(owner: np.ndarray, basins: int) -> np.ndarray:
    """Count the pixels of each owner, (1 + basins,); zero for owner 0."""
    area, end = np.zeros(basins + 1, np.int64), 0
    while end < len(owner):  # one run after another
        start, one = end, owner[end]
        while end < len(owner) and owner[end] == one:
            end += 1
        if one > 0:
            area[one] += end - start
    return area


@compiled
def _by_area(joined: np.ndarray, area: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the owners by falling area, -1 for 0 and beyond the `most` largest; and return areas by number."""
    for basin in range(1, len(area)):
        if joined[basin] != basin:
            area[_root(joined, basin)] += area[basin]
            area[basin] = 0
    roots = np.flatnonzero(area)
    order = roots[np.argsort(-area[roots], kind="mergesort")][:most]
    number = np.full(len(area), -1, np.int16)
    number[order] = np.arange(len(order))
    for basin in range(1, len(area)):
        number[basin] = number[_root(joined, basin)]
    return number, area[order]
