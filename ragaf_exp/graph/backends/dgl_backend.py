"""Graph attention by DGL's message passing (https://www.dgl.ai), whose build on PyPI runs on CPUs only."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import ModuleType

from torch import Tensor

from ragaf_exp.graph.backends.base import Backend, EdgeList, Edges, require_cpu, unavailable

GRAPHBOLT = "dgl.graphbolt"


@cache
def load_dgl() -> ModuleType:
    """Import dgl without GraphBolt, its loader of huge graphs. Raises UserError if it can't be loaded.

    GraphBolt is compiled for PyTorch up to 2.2 and prevents the whole package from loading with a later one. DGL uses
    only the module's name during its import, so an empty module replaces it meanwhile. Without DGLBACKEND, DGL would
    print a message and write a file in the user's home folder.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")
    stub = GRAPHBOLT not in sys.modules
    if stub:
        sys.modules[GRAPHBOLT] = ModuleType(GRAPHBOLT, "Replaces GraphBolt while DGL is imported.")
    try:
        import dgl
        import dgl.nn.functional
        import dgl.ops
    except (ImportError, OSError) as error:
        raise unavailable("dgl", "DGL", error) from error
    finally:
        if stub:
            del sys.modules[GRAPHBOLT]
    return dgl


class Dgl(Backend):
    """DGL's edge softmax and sparse products."""

    cpu_only = "dgl"

    def __init__(self) -> None:
        load_dgl()

    def lay_out(self, edges: Tensor, edge_mask: Tensor) -> Edges:
        require_cpu("dgl", edges.device)
        return DglEdges(edges, edge_mask)


class DglEdges(EdgeList):
    """The batch as one DGL graph, with padding as nodes without edges."""

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        super().__init__(edges, edge_mask)
        ends = (self.source.int(), self.target.int())
        self.graph = load_dgl().graph(ends, num_nodes=edge_mask.shape[:2].numel())

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Attend along the edges.

        Args:
            q: Queries (BN,H,d), already scaled.
            k: Keys (BN,H,d).
            v: Values (BN,H,d).
            bias: (M,H).
            features: (M,E).

        Returns:
            y (BN,H,d) and edge_sums (BN,H,E).
        """
        dgl = load_dgl()
        logits = dgl.ops.u_dot_v(self.graph, k, q) + bias[..., None]  # (M,H,1)
        attention = dgl.nn.functional.edge_softmax(self.graph, logits)
        edge_sums = dgl.ops.copy_e_sum(self.graph, attention * features[:, None])
        return dgl.ops.u_mul_e_sum(self.graph, v, attention), edge_sums
