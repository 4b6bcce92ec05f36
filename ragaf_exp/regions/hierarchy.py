"""Containment hierarchy of regions."""

from __future__ import annotations

import numpy as np

from ragaf_exp.core.jit import compiled


@compiled
def nest(touching: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute the parent and depth of N regions.

    Region i encloses j if every path from j to the outside leads through i (i dominates j in the graph of contacts),
    that is if j lies in a hole of i. This agrees with the nesting of contours, and also holds where several regions
    share a hole. The parent is the innermost enclosing region. Nesting deeper than `levels` is cut off: such a region
    becomes a child of its ancestor at depth levels - 1.

    Args:
        touching: (N+1,N+1) bool, symmetric: regions with a common border or corner; index N is the outside.
        levels: Largest depth.

    Returns:
        Parent (N,) int16, -1 = none, and depth (N,) int16.
    """
    count = len(touching) - 1
    encloses = np.zeros((count, count), np.bool_)
    first, others = _neighbours(touching)
    for region in range(count):
        encloses[region] = ~_reached_from_outside(first, others, region)[:count]
        encloses[region, region] = False
    depth = np.zeros(count, np.int16)
    for region in range(count):
        depth += encloses[region]
    parent = np.full(count, -1, np.int16)
    for child in range(count):
        level = min(depth[child], levels) - 1
        for region in range(count):
            if encloses[region, child] and depth[region] == level:  # enclosing regions form a chain, one per level
                parent[child] = region
    return parent, np.minimum(depth, levels).astype(np.int16)


@compiled
def _neighbours(touching: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List all neighbours, region by region; return each region's first index (N+2,), and the list."""
    first, others, count = np.zeros(len(touching) + 1, np.int64), np.empty(touching.sum(), np.int64), 0
    for here in range(len(touching)):
        for other in range(len(touching)):
            if touching[here, other]:
                others[count] = other
                count += 1
        first[here + 1] = count
    return first, others


@compiled
def _reached_from_outside(first: np.ndarray, others: np.ndarray, without: int) -> np.ndarray:
    """Determine the regions (N+1,) bool that are reachable from the outside when one region is removed."""
    count = len(first) - 1
    reached, stack, height = np.zeros(count, np.bool_), np.empty(count, np.int64), 1
    reached[count - 1], stack[0] = True, count - 1
    while height:
        height -= 1
        here = stack[height]
        for other in others[first[here] : first[here + 1]]:
            if not reached[other] and other != without:
                reached[other] = True
                stack[height] = other
                height += 1
    return reached
