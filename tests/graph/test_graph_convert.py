"""Padded batches to DGL's and PyTorch Geometric's batched graphs, and back without a difference."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.graph.backends.dgl_backend import load_dgl
from ragaf_exp.graph.backends.pyg import load_pyg
from ragaf_exp.graph.convert import Padded, from_dgl, from_pyg, to_dgl, to_pyg
from ragaf_exp.runs.folder import RunFolder

needs_dgl = pytest.mark.skipif(importlib.util.find_spec("dgl") is None, reason="dgl is not installed")
needs_pyg = pytest.mark.skipif(
    importlib.util.find_spec("torch_geometric") is None, reason="torch_geometric is not installed"
)
BOTH = pytest.mark.parametrize(
    ("there", "back"),
    [pytest.param(to_dgl, from_dgl, id="dgl", marks=needs_dgl), pytest.param(to_pyg, from_pyg, id="pyg", marks=needs_pyg)],
)


def batch_of(counts: list[int], density: float, loops: bool = True, seed: int = 0, dtype=torch.float32) -> Padded:
    """Random graphs of so many nodes each, padded to the largest as `collate` pads."""
    torch.manual_seed(seed)
    size = max(1, *counts)
    node_mask = torch.arange(size) < torch.tensor(counts)[:, None]
    edge_mask = (torch.rand(len(counts), size, size) < density) & node_mask[:, None] & node_mask[:, :, None]
    edge_mask &= torch.ones(size, size, dtype=torch.bool) if loops else ~torch.eye(size, dtype=torch.bool)
    nodes, edges = torch.randn(len(counts), size, 5), torch.randn(len(counts), size, size, 3)
    return (nodes * node_mask[..., None]).to(dtype), node_mask, (edges * edge_mask[..., None]).to(dtype), edge_mask


def same(one: Padded, other: Padded) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


@BOTH
@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=6), density=st.sampled_from([0.0, 0.2, 1.0]),
    loops=st.booleans(), seed=st.integers(0, 2**16), dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
)  # fmt: skip
def test_there_and_back_is_the_same_batch(there, back, counts, density, loops, seed, dtype):
    batch = batch_of(counts, density, loops, seed, dtype)
    assert same(back(there(*batch)), batch)


@BOTH
@pytest.mark.parametrize("counts", [[0], [0, 0], [1], [4, 0], [0, 4]])
def test_empty_graphs_and_single_items(there, back, counts):
    batch = batch_of(counts, 1.0)
    assert same(back(there(*batch)), batch)


@BOTH
def test_more_padding_than_needed_is_cut_to_the_largest_graph(there, back):
    nodes, node_mask, edges, edge_mask = batch_of([3, 7], 0.5)
    first = nodes[:1], node_mask[:1], edges[:1], edge_mask[:1]
    assert same(back(there(*first)), (nodes[:1, :3], node_mask[:1, :3], edges[:1, :3, :3], edge_mask[:1, :3, :3]))


@BOTH
def test_a_batch_of_real_scenes(there, back, tiny, tmp_path):
    examples = assemble(compose_config([*tiny, "graph=adjacency"]), RunFolder(tmp_path)).examples("train")
    batch = collate([examples[i] for i in range(6)])
    fields = batch.nodes, batch.node_mask, batch.edges, batch.edge_mask
    assert same(back(there(*fields)), fields)


@BOTH
def test_gradients_pass_there_and_back(there, back):
    nodes, node_mask, edges, edge_mask = batch_of([3, 0, 2], 0.7)
    nodes, edges = nodes.requires_grad_(), edges.requires_grad_()
    out, _, out_edges, _ = back(there(nodes, node_mask, edges, edge_mask))
    (out.sum() + 2 * out_edges.sum()).backward()
    assert torch.equal(nodes.grad, node_mask[..., None].expand_as(nodes).float())
    assert torch.equal(edges.grad, 2 * edge_mask[..., None].expand_as(edges).float())


@needs_dgl
def test_dgl_unbatches_and_batches_it():
    dgl = load_dgl()
    batch = batch_of([3, 0, 5], 0.5)
    nodes, _, edges, edge_mask = batch
    graph = to_dgl(*batch)
    assert graph.batch_size == 3 and graph.batch_num_nodes().tolist() == [3, 0, 5]
    assert graph.batch_num_edges().tolist() == edge_mask.sum((1, 2)).tolist()
    parts = dgl.unbatch(graph)
    for b, part in enumerate(parts):
        source, target = part.edges()
        assert torch.equal(part.ndata["nodes"], nodes[b, : part.num_nodes()])
        assert torch.equal(part.edata["edges"], edges[b, target, source]) and edge_mask[b, target, source].all()
    assert same(from_dgl(dgl.batch(parts)), batch)


@needs_pyg
def test_pyg_lists_and_batches_it():
    data = load_pyg().data
    batch = batch_of([3, 0, 5], 0.5)
    nodes, _, edges, edge_mask = batch
    made = to_pyg(*batch)
    assert made.validate() and made.num_graphs == 3 and made.ptr.tolist() == [0, 3, 3, 8]
    assert made.batch.tolist() == [0] * 3 + [2] * 5
    parts = made.to_data_list()
    for b, part in enumerate(parts):
        source, target = part.edge_index
        assert torch.equal(part.x, nodes[b, : part.num_nodes])
        assert torch.equal(part.edge_attr, edges[b, target, source]) and edge_mask[b, target, source].all()
    assert same(from_pyg(data.Batch.from_data_list(parts)), batch)


def gathered(batch: Padded) -> torch.Tensor:
    """(all nodes, F): what graph attention's direction says: node i sums over the j that row i of edge_mask holds."""
    nodes, node_mask, _, edge_mask = batch
    return torch.einsum("bij,bjf->bif", edge_mask.float(), nodes)[node_mask]


@needs_dgl
def test_dgls_messages_flow_as_attention_does():
    dgl, batch = load_dgl(), batch_of([4, 0, 6], 0.3)
    graph = to_dgl(*batch)
    graph.update_all(dgl.function.copy_u("nodes", "m"), dgl.function.sum("m", "sum"))
    torch.testing.assert_close(graph.ndata["sum"], gathered(batch))


@needs_pyg
def test_pygs_messages_flow_as_attention_does():
    batch = batch_of([4, 0, 6], 0.3)
    made = to_pyg(*batch)
    result = load_pyg().nn.SimpleConv(aggr="sum")(made.x, made.edge_index)
    torch.testing.assert_close(result, gathered(batch))


@BOTH
def test_masks_that_no_batch_has_are_refused(there, back):
    nodes, node_mask, edges, edge_mask = batch_of([3, 2], 1.0)
    with pytest.raises(ValueError, match="before its padding"):
        there(nodes, node_mask.flip(1), edges, edge_mask)
    with pytest.raises(ValueError, match="edges of nodes that node_mask does not"):
        there(nodes, node_mask, edges, torch.ones_like(edge_mask))


@needs_dgl
def test_parallel_edges_have_no_room():
    graph = load_dgl().graph(([0, 0], [1, 1]))
    graph.ndata["nodes"], graph.edata["edges"] = torch.ones(2, 5), torch.ones(2, 3)
    with pytest.raises(ValueError, match="same ends"):
        from_dgl(graph)


@needs_dgl
def test_dgl_takes_tensors_of_the_processor_only():
    with pytest.raises(UserError, match="not on meta"):
        to_dgl(*(part.to("meta") for part in batch_of([2], 1.0)))
