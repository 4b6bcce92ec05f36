"""Hybrid graphs of adjacency and nearest neighbours."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.graph.adjacency import adjacent, check_border
from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry
from ragaf_exp.graph.knn import check_k, nearest


class Hybrid(RegionGraph):
    """The union of Adjacency and Knn.

    Args:
        k: Number of nearest neighbours.
        self_loops: Whether every region is its own neighbour.
        min_border: As for `Adjacency`.
    """

    def __init__(self, k: limits.Neighbours = 4, self_loops: bool = True, min_border: limits.ShareBelowOne = 0.02) -> None:
        super().__init__(self_loops)
        check_k(k)
        check_border(min_border)
        self.k, self.min_border = k, min_border

    def connect(self, shape: Geometry) -> np.ndarray:
        return adjacent(shape, self.min_border) | nearest(shape, self.k)
