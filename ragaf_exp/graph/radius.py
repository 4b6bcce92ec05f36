"""Graphs of neighbours within a distance."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


class Radius(RegionGraph):
    """Edges between regions with nearby centroids.

    Args:
        radius: Largest distance between centroids; the picture is 2 wide and 2 high.
        self_loops: Whether every region is its own neighbour.
    """

    def __init__(self, radius: limits.Radius = 0.5, self_loops: bool = True) -> None:
        super().__init__(self_loops)
        if not radius > 0:
            raise UserError(f"graph.radius={radius}: must be above 0; take 0.5 (the picture is 2 wide)")
        self.radius = radius

    def connect(self, shape: Geometry) -> np.ndarray:
        return shape.distance <= self.radius
