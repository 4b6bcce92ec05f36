"""Adjacency graphs: edges between regions that touch across a stroke."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


def check_border(min_border: float) -> None:
    """Raise UserError unless min_border is a fraction."""
    if not 0 <= min_border < 1:
        raise UserError(f"graph.min_border={min_border}: must be a fraction, 0 to below 1; take 0.02")


def adjacent(shape: Geometry, min_border: float) -> np.ndarray:
    """Compute adjacency (N,N) bool: a common border longer than min_border (fraction of the smaller perimeter)."""
    return shape.border > min_border


class Adjacency(RegionGraph):
    """Edges between regions with a common border across a stroke.

    Args:
        self_loops: Whether every region is its own neighbour.
        min_border: Fraction of the smaller perimeter up to which borders don't count, so that regions that meet at a
            corner are not neighbours.
    """

    def __init__(self, self_loops: bool = True, min_border: limits.ShareBelowOne = 0.02) -> None:
        super().__init__(self_loops)
        check_border(min_border)
        self.min_border = min_border

    def connect(self, shape: Geometry) -> np.ndarray:
        return adjacent(shape, self.min_border)
