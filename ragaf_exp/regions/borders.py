"""Borders in a label map of N regions: the number of pixel pairs between each two; index N is the outside."""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.jit import compiled


@compiled
def crossings(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Count pairs of neighbouring pixels of which one is in region i and the other in j.

    Args:
        labels: (H,W) int, -1 = no region. Pixels of no region and those outside the picture count as region N, so that
            a row's sum of straight pairs is the region's perimeter in pixel sides.
        count: Number of regions N.

    Returns:
        Straight and diagonal pairs, (N+1,N+1) int32 each, symmetric with zero diagonal.
    """
    height, width = labels.shape
    straight = np.zeros((count + 1, count + 1), np.int32)
    diagonal = np.zeros((count + 1, count + 1), np.int32)
    above, row = np.full(width + 2, count, np.int32), np.full(width + 2, count, np.int32)
    for y in range(height + 1):
        for x in range(width):
            row[x + 1] = labels[y, x] if y < height and labels[y, x] >= 0 else count
        for x in range(1, width + 2):
            here, left, up, corner = row[x], row[x - 1], above[x], above[x - 1]
            if here == left == up == corner:
                continue
            straight[here, left] += here != left
            straight[here, up] += here != up
            diagonal[here, corner] += here != corner
            diagonal[left, up] += left != up
        above, row = row, above
    return straight + straight.T, diagonal + diagonal.T


def follow(target: np.ndarray) -> np.ndarray:
    """Number the groups connected by pointers i -> target[i], in the order of their lowest member: (N,), 0..M-1."""
    lowest = np.arange(len(target))
    while True:
        before = lowest
        lowest = np.minimum(lowest, lowest[target])
        np.minimum.at(lowest, target, lowest)
        lowest = lowest[lowest]  # pointer jumping: long chains take few rounds
        if np.array_equal(lowest, before):
            return np.unique(lowest, return_inverse=True)[1].reshape(-1)


@compiled
def contract(pairs: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Add up the rows and columns (N,N) of each group (N,), 0..M-1, and clear the diagonal: (M,M)."""
    size = group.max() + 1
    out = np.zeros((size, size), pairs.dtype)
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            out[group[i], group[j]] += pairs[i, j]
    for i in range(size):
        out[i, i] = 0
    return out


def by_area(areas: np.ndarray) -> np.ndarray:
    """Number the regions by falling area, (N,); equal areas keep their order."""
    number = np.empty(len(areas), np.int64)
    number[np.argsort(-areas, kind="stable")] = np.arange(len(areas))
    return number


@compiled
def renumber(labels: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Replace each label i of (H,W) int16, all at least 0, by number[i]: (H,W) int16."""
    out = np.empty(labels.shape, np.int16)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            out[y, x] = number[labels[y, x]]
    return out


@compiled
def tally(labels: np.ndarray, count: int) -> np.ndarray:
    """Count the pixels of each region, (N,) int64, in labels (H,W), all at least 0."""
    areas, width = np.zeros(count, np.int64), labels.shape[1]
    for y in range(labels.shape[0]):
        end = 0
        while end < width:  # one run of a region's pixels after another
            start, label = end, labels[y, end]
            while end < width and labels[y, end] == label:
                end += 1
            areas[label] += end - start
    return areas
