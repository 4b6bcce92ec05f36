"""Borders in a label map of N regions: how many pixel pairs join each two. Number N is what lies outside them."""

from __future__ import annotations

import numpy as np


def crossings(labels: np.ndarray, count: int, diagonal: bool = False) -> np.ndarray:
    """(N+1,N+1) int64: pairs of neighbouring pixels, one in region i and one in j; symmetric, zero diagonal.

    labels (H,W) int, -1 = no region; pixels of no region and those beyond the picture count as region N, so a row's
    sum is the region's perimeter in pixel sides. Neighbours are the 4 straight ones, or the 4 diagonal ones.
    """
    height, width = labels.shape
    padded = np.full((height + 2, width + 2), count, np.int32)
    np.copyto(padded[1:-1, 1:-1], labels, where=labels >= 0)
    flat, stride = padded.ravel(), width + 2
    codes = []
    for step in (stride - 1, stride + 1) if diagonal else (1, stride):
        # Pairs that wrap around a row's end join padding to padding, so they never count.
        first, second = flat[:-step], flat[step:]
        differ = np.flatnonzero(first != second)
        codes.append(first[differ] * (count + 1) + second[differ])
    pairs = np.bincount(np.concatenate(codes), minlength=(count + 1) ** 2).reshape(count + 1, count + 1)
    return pairs + pairs.T


def follow(target: np.ndarray) -> np.ndarray:
    """Number the groups that pointers i -> target[i] form, in the order of their lowest member: (N,), 0..M-1."""
    lowest = np.arange(len(target))
    while True:
        before = lowest
        lowest = np.minimum(lowest, lowest[target])
        np.minimum.at(lowest, target, lowest)
        lowest = lowest[lowest]  # pointer jumping: long chains take few rounds
        if np.array_equal(lowest, before):
            return np.unique(lowest, return_inverse=True)[1].reshape(-1)


def contract(pairs: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Add up the rows and columns (N,N) of each group (N,), 0..M-1, and clear the diagonal: (M,M)."""
    size = int(group.max()) + 1
    codes = (group[:, None] * size + group).ravel()
    pairs = np.bincount(codes, weights=pairs.ravel(), minlength=size * size).reshape(size, size)
    np.fill_diagonal(pairs, 0)
    return pairs


def by_area(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Renumber by area, the largest first; equal areas keep their order.

    Returns the label map and the new number of each old one, (N,).
    """
    areas = np.bincount(labels.ravel() + 1, minlength=count + 1)[1:]
    if (areas[1:] <= areas[:-1]).all():
        return labels, np.arange(count)
    number = np.empty(count + 1, np.int16)
    number[np.argsort(-areas, kind="stable")] = np.arange(count)
    number[-1] = -1  # what index -1 finds: no region stays no region
    return number[labels], number[:-1]
