"""Complete graphs."""

from __future__ import annotations

import numpy as np

from ragaf_exp.graph.base import RegionGraph
from ragaf_exp.graph.features import Geometry


class Complete(RegionGraph):
    """Edges between all regions, so that only attention weights them. Arguments as for `RegionGraph`."""

    def connect(self, shape: Geometry) -> np.ndarray:
        return np.ones(shape.distance.shape, bool)
