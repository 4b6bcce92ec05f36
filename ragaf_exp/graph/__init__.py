"""Region graphs: one class per type, with shared features."""

from ragaf_exp.graph.adjacency import Adjacency
from ragaf_exp.graph.complete import Complete
from ragaf_exp.graph.containment import Containment
from ragaf_exp.graph.features import EDGE_FEATURES, NODE_FEATURES
from ragaf_exp.graph.hierarchical import Hierarchical
from ragaf_exp.graph.hybrid import Hybrid
from ragaf_exp.graph.knn import Knn
from ragaf_exp.graph.none import NoEdges
from ragaf_exp.graph.radius import Radius

__all__ = [
    "EDGE_FEATURES", "NODE_FEATURES", "Adjacency", "Complete", "Containment", "Hierarchical", "Hybrid", "Knn", "NoEdges",
    "Radius",
]  # fmt: skip
