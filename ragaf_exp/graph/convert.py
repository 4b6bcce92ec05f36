"""Conversion of padded batches of region graphs to and from the batched graphs of DGL and of PyTorch Geometric.

Shapes: B graphs, N nodes (padded), F node features, E edge features. Here an edge i -> j means that node i attends to
node j. In both libraries messages flow from source to target, so that j becomes the source and i the target: their
message passing then aggregates at i over the nodes that i attends to, as graph attention does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ragaf_exp.graph.backends.base import require_cpu
from ragaf_exp.graph.backends.dgl_backend import load_dgl
from ragaf_exp.graph.backends.pyg import load_pyg

if TYPE_CHECKING:
    from dgl import DGLGraph
    from torch_geometric.data import Batch

Padded = tuple[Tensor, Tensor, Tensor, Tensor]  # nodes (B,N,F), node_mask (B,N), edges (B,N,N,E), edge_mask (B,N,N)


@dataclass(frozen=True)
class Listed:
    """The concatenated nodes of all graphs, and their edges."""

    nodes: Tensor  # (all nodes, F)
    edges: Tensor  # (all edges, E), graph after graph
    source: Tensor  # (all edges,) index of j among all nodes
    target: Tensor  # (all edges,) index of i among all nodes
    node_counts: Tensor  # (B,)
    edge_counts: Tensor  # (B,)

    @property
    def starts(self) -> Tensor:
        """Index (B,) of each graph's first node."""
        return self.node_counts.cumsum(0) - self.node_counts


def to_dgl(nodes: Tensor, node_mask: Tensor, edges: Tensor, edge_mask: Tensor) -> DGLGraph:
    """Convert to a batched DGL graph with ndata["nodes"] and edata["edges"]; dgl.unbatch gives the B graphs.

    Args:
        nodes: (B,N,F).
        node_mask: (B,N) bool.
        edges: (B,N,N,E).
        edge_mask: (B,N,N) bool.

    Raises:
        UserError: DGL is not installed, or the tensors are not on the CPU.
        ValueError: As for `listed`.
    """
    require_cpu("dgl", nodes.device)
    rows = listed(nodes, node_mask, edges, edge_mask)
    graph = load_dgl().graph((rows.source, rows.target), num_nodes=len(rows.nodes))
    graph.ndata["nodes"], graph.edata["edges"] = rows.nodes, rows.edges
    graph.set_batch_num_nodes(rows.node_counts)
    graph.set_batch_num_edges(rows.edge_counts)
    return graph


def from_dgl(graph: DGLGraph) -> Padded:
    """Invert `to_dgl`, padding to the largest graph (at least 1). Raises ValueError as `padded`."""
    counts = graph.batch_num_nodes(), graph.batch_num_edges()
    return padded(Listed(graph.ndata["nodes"], graph.edata["edges"], *graph.edges(), *counts))


def to_pyg(nodes: Tensor, node_mask: Tensor, edges: Tensor, edge_mask: Tensor) -> Batch:
    """Convert to a PyTorch Geometric batch with x, edge_index, edge_attr, batch and ptr; to_data_list gives the graphs.

    Args:
        nodes: (B,N,F).
        node_mask: (B,N) bool.
        edges: (B,N,N,E).
        edge_mask: (B,N,N) bool.

    Raises:
        UserError: PyTorch Geometric is not installed.
        ValueError: As for `listed`.
    """
    data = load_pyg().data
    rows = listed(nodes, node_mask, edges, edge_mask)
    each = rows.node_counts.tolist(), rows.edge_counts.tolist()
    index = torch.stack([rows.source, rows.target]) - rows.starts.repeat_interleave(rows.edge_counts)
    parts = zip(rows.nodes.split(each[0]), index.split(each[1], 1), rows.edges.split(each[1]), strict=True)
    return data.Batch.from_data_list([data.Data(x=x, edge_index=ends, edge_attr=e) for x, ends, e in parts])


def from_pyg(batch: Batch) -> Padded:
    """Invert `to_pyg`, padding to the largest graph (at least 1). Raises ValueError as `padded`."""
    counts = batch.ptr.diff()
    edge_counts = batch.batch[batch.edge_index[1]].bincount(minlength=len(counts))
    return padded(Listed(batch.x, batch.edge_attr, *batch.edge_index, counts, edge_counts))


def listed(nodes: Tensor, node_mask: Tensor, edges: Tensor, edge_mask: Tensor) -> Listed:
    """Remove the padding of a batch.

    Args:
        nodes: (B,N,F).
        node_mask: (B,N) bool.
        edges: (B,N,N,E).
        edge_mask: (B,N,N) bool.

    Returns:
        The concatenated nodes and edges.

    Raises:
        ValueError: A graph's nodes don't come before its padding, or padding has edges.
    """
    if (node_mask[:, 1:] & ~node_mask[:, :-1]).any():
        raise ValueError("node_mask: a graph's nodes must come before its padding")
    if (edge_mask & ~(node_mask[:, :, None] & node_mask[:, None])).any():
        raise ValueError("edge_mask: holds edges of nodes that node_mask does not")
    counts = node_mask.sum(1)
    item, i, j = edge_mask.nonzero(as_tuple=True)
    start = (counts.cumsum(0) - counts)[item]
    return Listed(nodes[node_mask], edges[edge_mask], start + j, start + i, counts, edge_mask.sum((1, 2)))


def padded(rows: Listed) -> Padded:
    """Pad with zeros. Raises ValueError if two edges have the same ends, as a padded batch can hold only one."""
    items, counts = len(rows.node_counts), rows.node_counts
    most = max([1, *counts.tolist()])
    node_mask = torch.arange(most, device=counts.device) < counts[:, None]
    nodes = rows.nodes.new_zeros(items, most, rows.nodes.shape[-1])
    nodes[node_mask] = rows.nodes
    item = torch.arange(items, device=counts.device).repeat_interleave(rows.edge_counts)
    index = item, rows.target - rows.starts[item], rows.source - rows.starts[item]
    edge_mask = torch.zeros(items, most, most, dtype=torch.bool, device=counts.device)
    edge_mask[index] = True
    if edge_mask.sum() < len(rows.edges):
        raise ValueError("edges: two of them have the same ends, and a padded batch has room for one")
    edges = rows.edges.new_zeros(items, most, most, rows.edges.shape[-1])
    edges[index] = rows.edges
    return nodes, node_mask, edges, edge_mask
