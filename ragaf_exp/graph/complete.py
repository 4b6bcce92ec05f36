"""Every region a neighbour of every other."""

from __future__ import annotations

import numpy as np

from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


class Complete(RegionGraph):
    """All edges: attention decides alone."""

    def connect(self, shape: Geometry) -> np.ndarray:
        return np.ones(shape.distance.shape, bool)
