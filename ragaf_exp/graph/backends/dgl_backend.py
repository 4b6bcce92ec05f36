"""Graph attention by DGL's message passing (https://www.dgl.ai). Its build on PyPI runs on processors only."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import ModuleType

from torch import Tensor

from ragaf_exp.graph.backends.base import Backend, EdgeList, Edges, need_processor, unavailable

GRAPHBOLT = "dgl.graphbolt"


@cache
def load_dgl() -> ModuleType:
    """The dgl package without GraphBolt, its loader of huge graphs. UserError where it can't be loaded.

    GraphBolt is compiled for PyTorch up to 2.2 and stops the whole package from loading with a later one. DGL only
    takes the module's name while it is imported, so an empty module stands in for it meanwhile. DGLBACKEND unset
    would make DGL print and write a file in the user's home.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")
    stands_in = GRAPHBOLT not in sys.modules
    if stands_in:
        sys.modules[GRAPHBOLT] = ModuleType(GRAPHBOLT, "Stands in for GraphBolt while DGL is imported.")
    try:
        import dgl
        import dgl.nn.functional
        import dgl.ops
    except (ImportError, OSError) as error:
        raise unavailable("dgl", "DGL", error) from error
    finally:
        if stands_in:
            del sys.modules[GRAPHBOLT]
    return dgl


class Dgl(Backend):
    """DGL's edge softmax and sparse products."""

    processor_only = "dgl"

    def __init__(self) -> None:
        load_dgl()

    def lay_out(self, edges: Tensor, edge_mask: Tensor) -> Edges:
        need_processor("dgl", edges.device)
        return DglEdges(edges, edge_mask)


class DglEdges(EdgeList):
    """The batch as one DGL graph, padding as nodes without edges."""

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        super().__init__(edges, edge_mask)
        ends = (self.source.int(), self.target.int())
        self.graph = load_dgl().graph(ends, num_nodes=edge_mask.shape[:2].numel())

    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        dgl = load_dgl()
        logits = dgl.ops.u_dot_v(self.graph, k, q) + bias[..., None]  # (M,H,1)
        attention = dgl.nn.functional.edge_softmax(self.graph, logits)
        seen = dgl.ops.copy_e_sum(self.graph, attention * features[:, None])
        return dgl.ops.u_mul_e_sum(self.graph, v, attention), seen
