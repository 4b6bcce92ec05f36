"""Padded graph attention in plain PyTorch, for every device and dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from ragaf_exp.core.tensors import MASK_VALUE
from ragaf_exp.graph.backends.base import Backend, Edges, wide


class Dense(Backend):
    """Attention over all pairs of a padded batch, with pairs without an edge masked."""

    def lay_out(self, edges: Tensor, edge_mask: Tensor) -> Edges:
        """List edges on CPUs only: on accelerators, reading their number would synchronise with the device."""
        return (DenseEdges if edges.device.type == "cpu" else PaddedEdges)(edges, edge_mask)


class DenseEdges(Edges):
    """Dense (N,N) matrix products with an explicit softmax.

    scaled_dot_product_attention can't return sum_j a_ij features_ij: with keys and values expanded for each query it
    took 1.6 to 4.6 times as long, and with a second pass for them 1.1 to 1.5 times (16 graphs of 30 nodes and 48 of
    8, forward and backward, float32 on 1 and 2 CPU threads, bf16 on 1).
    """

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        super().__init__(edges, edge_mask)
        self.edges = edges

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attend along the edges.

        Args:
            q: Queries (B,N,H,d).
            k: Keys (B,N,H,d).
            v: Values (B,N,H,d).
            bias: (M,H), one per edge and head.

        Returns:
            y (B,N,Hd) and edge_sums (B,N,HE).
        """
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B,H,N,d)
        masked = self._masked(wide(bias)).permute(0, 3, 1, 2)  # (B,H,N,N), like the logits
        logits = torch.add(masked, q @ k.transpose(-1, -2), alpha=q.shape[-1] ** -0.5)
        attention = logits.softmax(-1).to(v.dtype)
        y = (attention @ v).transpose(1, 2)  # (B,N,H,d)
        edge_sums = attention.transpose(1, 2) @ self.edges.to(v.dtype)  # (B,N,H,E)
        return y.flatten(-2), edge_sums.flatten(-2)

    def _masked(self, bias: Tensor) -> Tensor:
        """Scatter the bias (M,H) to (B,N,N,H), MASK_VALUE where there is no edge."""
        pairs, heads = self.edges.shape[:3], bias.shape[-1]
        masked = bias.new_full((pairs.numel(), heads), MASK_VALUE).index_copy(0, self.index, bias)
        return masked.view(*pairs, heads)


class PaddedEdges(DenseEdges):
    """Dense edges with features of all pairs, whether or not there is an edge, so that M = BNN."""

    def __init__(self, edges: Tensor, edge_mask: Tensor):
        self.edges, self.mask = edges, edge_mask
        self.features = edges.flatten(0, 2)
        self.connected = edge_mask.any(-1, keepdim=True)

    def _masked(self, bias: Tensor) -> Tensor:
        bias = bias.view(*self.mask.shape, -1)
        return bias.masked_fill(~self.mask[..., None], MASK_VALUE)
