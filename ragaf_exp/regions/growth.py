"""Label growth: spreading region labels over pixels that have none."""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.jit import compiled

BARE, SEEN = -1, -2


@compiled
def fill(labels: np.ndarray) -> np.ndarray:
    """Give every unlabelled pixel the nearest label, counted in straight steps; labels (H,W) int16, -1 = unlabelled.

    A pixel that several labels reach at once takes the highest: labels are ordered by area, so an outline goes to the
    figure, not to its ground, and a flipped sketch grows the flipped labels. Every label stays 4-connected. A map
    without labels stays as it is; labels is not changed.
    """
    grown = labels.copy()
    front = _beside_labels(grown)
    while len(front):  # all look before any is written, so that order decides nothing
        for i in range(len(front)):
            grown[front[i, 0], front[i, 1]] = front[i, 2]
        front = _around(grown, front)
    return grown


@compiled
def _highest_around(grown: np.ndarray, y: int, x: int) -> int:
    highest = BARE
    if y > 0:
        highest = max(highest, grown[y - 1, x])
    if x > 0:
        highest = max(highest, grown[y, x - 1])
    if y < grown.shape[0] - 1:
        highest = max(highest, grown[y + 1, x])
    if x < grown.shape[1] - 1:
        highest = max(highest, grown[y, x + 1])
    return highest


@compiled
def _beside_labels(grown: np.ndarray) -> np.ndarray:
    """Pixels without a label, beside one that has a label: (M,3) row, column and the label that they get."""
    height, width = grown.shape
    bare = 0
    for y in range(height):
        for x in range(width):
            bare += grown[y, x] == BARE
    front, count = np.empty((bare, 3), np.int32), 0
    for y in range(height if bare else 0):
        for x in range(width):
            if grown[y, x] == BARE:
                label = _highest_around(grown, y, x)
                if label >= 0:
                    front[count, 0], front[count, 1], front[count, 2] = y, x, label
                    count += 1
    return front[:count]


@compiled
def _around(grown: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Pixels without a label around a front, each once: (M,3) row, column and the label that they get."""
    found, count = np.empty((4 * len(front), 3), np.int32), 0
    for i in range(len(front)):
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            y, x = front[i, 0] + dy, front[i, 1] + dx
            if 0 <= y < grown.shape[0] and 0 <= x < grown.shape[1] and grown[y, x] == BARE:
                grown[y, x] = SEEN
                found[count, 0], found[count, 1], found[count, 2] = y, x, _highest_around(grown, y, x)
                count += 1
    for i in range(count):
        grown[found[i, 0], found[i, 1]] = BARE
    return found[:count]
