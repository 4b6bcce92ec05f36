"""Containment graphs: edges between regions and the regions that directly enclose them."""

from __future__ import annotations

import numpy as np

from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


def parent_child(shape: Geometry) -> np.ndarray:
    """Compute the parent relation in both directions, (N,N) bool, symmetric."""
    n = len(shape.parent)
    below = shape.parent[None, :] == np.arange(n)[:, None]
    return below | below.T


class Containment(RegionGraph):
    """Edges between each region and its parent, the innermost enclosing region: a forest. Arguments as `RegionGraph`."""

    def connect(self, shape: Geometry) -> np.ndarray:
        return parent_child(shape)
