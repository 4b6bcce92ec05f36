"""Base of all graph types; a new type is a subclass that defines `connect`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ragaf_exp.core.types import Graph, Regions
from ragaf_exp.graph.features import Geometry, edge_features, geometry


class RegionGraph(ABC):
    """Regions -> Graph. Features are zero where there is no edge; all masks are symmetric.

    Args:
        self_loops: Whether every region is its own neighbour.
    """

    def __init__(self, self_loops: bool = True) -> None:
        self.self_loops = self_loops

    def __call__(self, regions: Regions) -> Graph:
        shape = geometry(regions)
        mask = self.connect(shape)
        np.fill_diagonal(mask, self.self_loops)
        return Graph(nodes=shape.nodes, edges=edge_features(shape) * mask[..., None], edge_mask=mask)

    @abstractmethod
    def connect(self, shape: Geometry) -> np.ndarray:
        """Choose the edges, (N,N) bool, True = an edge i -> j; the diagonal is overwritten by self_loops."""
