"""Graph attention by PyTorch Geometric's message passing (https://pyg.org)."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType

from torch import Tensor

from ragaf_exp.graph.backends.base import Backend, EdgeList, Edges, unavailable


@cache
def load_pyg() -> ModuleType:
    """Import torch_geometric. Raises UserError if it can't be loaded."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)  # its own use of PyTorch
            import torch_geometric
    except (ImportError, OSError) as error:
        raise unavailable("pyg", "PyTorch Geometric", error) from error
    return torch_geometric


class Pyg(Backend):
    """PyTorch Geometric's segment softmax and scatter; on CUDA its sums, and so runs, are not bit-reproducible."""

    def __init__(self) -> None:
        load_pyg()

    def lay_out(self, edges: Tensor, edge_mask: Tensor) -> Edges:
        return PygEdges(edges, edge_mask)


class PygEdges(EdgeList):
    """Edges by the indices of their two ends."""

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
        utils = load_pyg().utils
        logits = (q.index_select(0, self.target) * k.index_select(0, self.source)).sum(-1) + bias  # (M,H)
        attention = utils.softmax(logits, self.target, num_nodes=len(q))[..., None]
        messages = attention * v.index_select(0, self.source), attention * features[:, None]
        y, edge_sums = (utils.scatter(m, self.target, dim_size=len(q)) for m in messages)
        return y, edge_sums
