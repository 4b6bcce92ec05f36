"""Graphs without edges, for ablation."""

from __future__ import annotations

import numpy as np

from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


class NoEdges(RegionGraph):
    """No edge between regions; with self_loops each region still attends to itself. Arguments as for `RegionGraph`."""

    def connect(self, shape: Geometry) -> np.ndarray:
        return np.zeros(shape.distance.shape, bool)
