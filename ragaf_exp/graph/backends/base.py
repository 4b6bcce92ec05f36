"""What every backend shares: edges are listed once per batch, and all layers pass messages along that list.

Shapes: B batch, N nodes (padded), M edges of the whole batch, E edge features, H heads, d width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ragaf_exp.compute.device import pick_device
from ragaf_exp.core.errors import UserError


class Edges(ABC):
    """The edges i -> j of a batch of region graphs: node i attends to node j. Laid out as one backend wants them.

    features (M,E): of the edges that exist, in the order of (batch, i, j), so that nothing is computed for the rest.
    place (M,): where each stands in the flattened (B,N,N). connected (B,N,1): whether a node attends to any.
    """

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        """edges (B,N,N,E), edge_mask (B,N,N) bool."""
        self.place = edge_mask.flatten().nonzero()[:, 0]
        self.features = edges.flatten(0, 2).index_select(0, self.place)
        self.connected = edge_mask.any(-1, keepdim=True)

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """q, k, v (B,N,H,d) and one bias per edge and head (M,H) -> y (B,N,Hd) and seen (B,N,HE).

        a_ij = softmax over the edges i -> j of q_i k_j / sqrt(d) + bias_ij; y_i = sum_j a_ij v_j and
        seen_i = sum_j a_ij features_ij, per head. Where i attends to none, both are finite and mean nothing.
        """


class EdgeList(Edges):
    """For libraries that pass messages between nodes in one row (BN of them), from `source` to `target`.

    A message flows from what is attended to, j, to the node that attends, i: source (M,) is j, target (M,) is i.
    """

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        super().__init__(edges, edge_mask)
        nodes = edge_mask.shape[-1]
        self.target = self.place // nodes
        self.source = self.place // nodes**2 * nodes + self.place % nodes

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """In float32 at least, as these libraries lack half precision here and there; returned in v's dtype."""
        q, k = wide(q).flatten(0, 1) / q.shape[-1] ** 0.5, wide(k).flatten(0, 1)
        y, seen = self.aggregate(q, k, wide(v).flatten(0, 1), wide(bias), self.features.to(q.dtype))
        y, seen = (x.flatten(1).unflatten(0, v.shape[:2]).to(v.dtype) for x in (y, seen))
        return y, seen

    @abstractmethod
    def aggregate(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """q (scaled), k, v (BN,H,d), bias (M,H), features (M,E), all of one dtype -> y (BN,H,d), seen (BN,H,E)."""


class Backend(ABC):
    """One way to pass messages; without state or parameters, so that any backend reads any run's weights."""

    processor_only: str = ""  # the option's name, where its library runs on processors only

    def check(self, device: str) -> None:
        """UserError where this backend doesn't run on what config's memory.device says."""
        if self.processor_only:
            need_processor(self.processor_only, pick_device(device))

    @abstractmethod
    def lay_out(self, edges: Tensor, edge_mask: Tensor) -> Edges:
        """edges (B,N,N,E), edge_mask (B,N,N) bool -> what `attend` needs of them."""


def wide(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def need_processor(key: str, device: torch.device) -> None:
    """UserError where tensors are not in the processor's memory. key: the option."""
    if device.type != "cpu":
        raise UserError(f"graph/backend={key}: its library's build runs on processors only, not on {device.type}; "
                        "take graph/backend=dense, or memory.device=cpu")  # fmt: skip


def unavailable(key: str, library: str, error: Exception) -> UserError:
    """The error for a library that doesn't load. key: the option, which is also the name of the package's extra."""
    reason = f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) else str(error).split("\n")[0]
    return UserError(f"graph/backend={key}: {library} can't be loaded ({reason}); "
                     f"pip install 'ragaf_exp[{key}]', or take graph/backend=dense")  # fmt: skip
