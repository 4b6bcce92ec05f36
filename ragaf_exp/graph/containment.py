"""Containment: regions and what directly encloses them."""

from __future__ import annotations

import numpy as np

from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


def parent_child(shape: Geometry) -> np.ndarray:
    """(N,N) bool, symmetric: one is the other's parent."""
    n = len(shape.parent)
    below = shape.parent[None, :] == np.arange(n)[:, None]
    return below | below.T


class Containment(RegionGraph):
    """Edges between each region and its parent, the innermost region that encloses it: a forest."""

    def connect(self, shape: Geometry) -> np.ndarray:
        return parent_child(shape)
