"""Merging regions that are too small or too many into their neighbours."""

from __future__ import annotations

import numpy as np

from ragaf_exp.regions.borders import contract, follow


def merge(borders: np.ndarray, areas: np.ndarray, background: int, least: float, most: int) -> np.ndarray:
    """Join every region smaller than `least` pixels, or beyond the `most` largest, to a neighbour.

    In rounds: each such region joins the neighbour it shares the longest border with (the lower index on a
    tie), all at once, and the joined areas are weighed anew, so specks may add up to a region. The background
    is always kept. borders (N,N) symmetric, zero diagonal, areas (N,). Returns group (N,), 0..M-1, M <= most.
    """
    group = np.arange(len(areas))
    while True:
        doomed = _doomed(areas, background, least, most)
        if not doomed.any():
            return group
        step = follow(np.where(doomed, borders.argmax(axis=1), np.arange(len(areas))))
        group, background = step[group], int(step[background])
        areas, borders = np.bincount(step, weights=areas), contract(borders, step)


def _doomed(areas: np.ndarray, background: int, least: float, most: int) -> np.ndarray:
    """(N,) bool: too small, or not among the `most` largest, the background counting as the largest."""
    order = np.argsort(-areas, kind="stable")
    order = np.concatenate(([background], order[order != background]))
    doomed = areas < least
    doomed[order[most:]] = True
    doomed[background] = False
    return doomed
