"""Merging of regions that are too small or too many into their neighbours."""

from __future__ import annotations

import numpy as np

from ragaf_exp.regions.borders import contract, follow


def merge(borders: np.ndarray, areas: np.ndarray, background: int, least: float, most: int) -> np.ndarray:
    """Merge every region smaller than `least` pixels, or beyond the `most` largest, into a neighbour.

    In rounds, all such regions at once join the neighbour with the longest common border (the lower index on a tie);
    then the merged areas are compared again, so that specks may add up to a region. The background never joins another.

    Args:
        borders: (N,N) border lengths, symmetric with zero diagonal.
        areas: (N,) in pixels.
        background: Index of the background.
        least: Smallest area in pixels.
        most: Largest number of regions.

    Returns:
        (N,) new index of each region, 0..M-1 with M <= most.
    """
    group = np.arange(len(areas))
    while True:
        small = _to_merge(areas, background, least, most)
        if not small.any():
            return group
        step = follow(np.where(small, borders.argmax(axis=1), np.arange(len(areas))))
        group, background = step[group], int(step[background])
        areas, borders = np.bincount(step, weights=areas), contract(borders, step)


def _to_merge(areas: np.ndarray, background: int, least: float, most: int) -> np.ndarray:
    """Select regions (N,) bool too small, or not among the `most` largest; the background counts as the largest."""
    order = np.argsort(-areas, kind="stable")
    order = np.concatenate(([background], order[order != background]))
    small = areas < least
    small[order[most:]] = True
    small[background] = False
    return small
