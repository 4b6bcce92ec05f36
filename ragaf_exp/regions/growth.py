"""Label growth: spreading region labels over pixels that have none."""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.jit import compiled

BARE, VISITED = -1, -2


@compiled
def fill(labels: np.ndarray) -> np.ndarray:
    """Assign every unlabelled pixel the nearest label in city-block distance, in a copy.

    A pixel that several labels reach at once takes the highest: labels are ordered by area, so that an outline goes to
    the object and not to its background, and a flipped sketch gives flipped labels. Every label stays 4-connected.

    Args:
        labels: (H,W) int16, -1 = unlabelled.

    Returns:
        (H,W) int16, without -1 unless there is no label at all.
    """
    grown = labels.copy()
    front = _next_to_labels(grown)
    while len(front):  # labels are read before any is written, so that the result is independent of the order
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
def _next_to_labels(grown: np.ndarray) -> np.ndarray:
    """List unlabelled pixels next to a labelled one: (M,3) row, column and the label that they get."""
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
    """List unlabelled pixels around a front, each once: (M,3) row, column and the label that they get."""
    around, count = np.empty((4 * len(front), 3), np.int32), 0
    for i in range(len(front)):
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            y, x = front[i, 0] + dy, front[i, 1] + dx
            if 0 <= y < grown.shape[0] and 0 <= x < grown.shape[1] and grown[y, x] == BARE:
                grown[y, x] = VISITED
                around[count, 0], around[count, 1], around[count, 2] = y, x, _highest_around(grown, y, x)
                count += 1
    for i in range(count):
        grown[around[i, 0], around[i, 1]] = BARE
    return around[:count]
