"""Base of the backends: edges are listed once per batch, and all layers pass messages along that list.

Shapes: B batch, N nodes (padded), M edges of the whole batch, E edge features, H heads, d width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ragaf_exp.compute.device import pick_device
from ragaf_exp.core.errors import UserError


class Edges(ABC):
    """The edges i -> j of a batch of region graphs, where node i attends to node j, in one backend's layout.

    Args:
        edges: (B,N,N,E) features.
        edge_mask: (B,N,N) bool.
    """

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        self.index = edge_mask.flatten().nonzero()[:, 0]  # (M,) position of each edge in the flattened (B,N,N)
        self.features = edges.flatten(0, 2).index_select(0, self.index)  # (M,E) of existing edges, ordered by (batch, i, j)
        self.connected = edge_mask.any(-1, keepdim=True)  # (B,N,1), whether a node attends to any

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend along the edges.

        a_ij = softmax over the edges i -> j of q_i k_j / sqrt(d) + bias_ij; y_i = sum_j a_ij v_j and
        edge_sums_i = sum_j a_ij features_ij, per head. Both are finite but arbitrary where i attends to no node.

        Args:
            q: Queries (B,N,H,d).
            k: Keys (B,N,H,d).
            v: Values (B,N,H,d).
            bias: (M,H), one per edge and head.

        Returns:
            y (B,N,Hd) and edge_sums (B,N,HE).
        """


class EdgeList(Edges):
    """For libraries that pass messages between the BN concatenated nodes, from `source` to `target`.

    A message flows to the node that attends, i, from the node that it attends to, j: source (M,) is j, target (M,) is i.
    """

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        super().__init__(edges, edge_mask)
        nodes = edge_mask.shape[-1]
        self.target = self.index // nodes
        self.source = self.index // nodes**2 * nodes + self.index % nodes

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend in at least float32, as these libraries partly lack half precision; the results have v's dtype.

        Args:
            q: Queries (B,N,H,d).
            k: Keys (B,N,H,d).
            v: Values (B,N,H,d).
            bias: (M,H), one per edge and head.

        Returns:
            y (B,N,Hd) and edge_sums (B,N,HE).
        """
        q, k = wide(q).flatten(0, 1) / q.shape[-1] ** 0.5, wide(k).flatten(0, 1)
        y, edge_sums = self.aggregate(q, k, wide(v).flatten(0, 1), wide(bias), self.features.to(q.dtype))
        y, edge_sums = (x.flatten(1).unflatten(0, v.shape[:2]).to(v.dtype) for x in (y, edge_sums))
        return y, edge_sums

    @abstractmethod
    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Attend along the edges, with all arguments of one dtype.

        Args:
            q: Queries (BN,H,d), already scaled.
            k: Keys (BN,H,d).
            v: Values (BN,H,d).
            bias: (M,H).
            features: (M,E).

        Returns:
            y (BN,H,d) and edge_sums (BN,H,E).
        """


class Backend(ABC):
    """An implementation of message passing, without state or parameters, so that any backend loads any run's weights."""

    cpu_only: str = ""  # the option's name, if its library runs on CPUs only

    def check(self, device: str) -> None:
        """Raise UserError if this backend doesn't run on the config's memory.device."""
        if self.cpu_only:
            require_cpu(self.cpu_only, pick_device(device))

    @abstractmethod
    def lay_out(self, edges: Tensor, edge_mask: Tensor) -> Edges:
        """Convert edges (B,N,N,E) with edge_mask (B,N,N) bool to this backend's layout."""


def wide(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def require_cpu(key: str, device: torch.device) -> None:
    """Raise UserError unless the device is a CPU; `key` is the config option, for the message."""
    if device.type != "cpu":
        raise UserError(f"graph/backend={key}: its library's build runs on CPUs only, not on {device.type}; "
                        "take graph/backend=dense, or memory.device=cpu")  # fmt: skip


def unavailable(key: str, library: str, error: Exception) -> UserError:
    """Build the error for a library that can't be loaded.

    Args:
        key: The config option, which is also the name of this package's extra.
        library: The library's name.
        error: The exception of its import.
    """
    reason = f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) else str(error).split("\n")[0]
    return UserError(f"graph/backend={key}: {library} can't be loaded ({reason}); "
                     f"pip install 'ragaf_exp[{key}]', or take graph/backend=dense")  # fmt: skip
