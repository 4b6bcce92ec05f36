"""Hierarchical graphs: neighbours within a level of nesting, and parents between levels."""

from __future__ import annotations

import numpy as np

from ragaf_exp.config import limits
from ragaf_exp.graph.adjacency import adjacent, check_border
from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.containment import parent_child
from ragaf_exp.graph.features import Geometry


class Hierarchical(RegionGraph):
    """The union of Containment and of Adjacency among regions of equal depth. Arguments as for `Adjacency`."""

    def __init__(self, self_loops: bool = True, min_border: limits.ShareBelowOne = 0.02) -> None:
        super().__init__(self_loops)
        check_border(min_border)
        self.min_border = min_border

    def connect(self, shape: Geometry) -> np.ndarray:
        level = shape.depth[:, None] == shape.depth[None, :]
        return (adjacent(shape, self.min_border) & level) | parent_child(shape)
