"""Graphs of the k nearest neighbours by centroid."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


def check_k(k: int) -> None:
    """Raise UserError if k is below 1."""
    if k < 1:
        raise UserError(f"graph.k={k}: must be at least 1; take 4, or graph=none for no edges")


def nearest(shape: Geometry, k: int) -> np.ndarray:
    """Select pairs (N,N) bool in which j is among the k nearest of i or vice versa; ties go to the larger region."""
    n = len(shape.distance)
    mask = np.zeros((n, n), bool)
    k = min(k, n - 1)
    if k < 1:
        return mask
    away = shape.distance.copy()
    np.fill_diagonal(away, np.inf)
    mask[np.arange(n)[:, None], away.argsort(axis=1, kind="stable")[:, :k]] = True
    return mask | mask.T


class Knn(RegionGraph):
    """Edges to the k nearest regions by centroid, symmetrised by union: a region has at least min(k, N-1) neighbours.

    Args:
        k: Number of nearest neighbours.
        self_loops: Whether every region is its own neighbour.
    """

    def __init__(self, k: limits.Neighbours = 4, self_loops: bool = True) -> None:
        super().__init__(self_loops)
        check_k(k)
        self.k = k

    def connect(self, shape: Geometry) -> np.ndarray:
        return nearest(shape, self.k)
