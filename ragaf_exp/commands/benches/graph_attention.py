"""Benchmark: the backends of graph attention, compared with the dense one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

GRAPHS, NODES, WIDTH, HEADS, EDGE_FEATURES = 16, 30, 128, 4, 12
DENSITY = 0.2  # share of pairs with an edge: about 6 neighbours per node
LIBRARIES = {"dense": "torch", "dgl": "dgl", "pyg": "torch_geometric"}


def graph_attention() -> list[dict[str, Any]]:
    """Forward and backward pass of one attention layer, for every backend whose library is installed."""
    from ragaf_exp.commands.benches.timing import medians, row

    names = [name for name, library in LIBRARIES.items() if find_spec(library)]
    what = f"forward and backward, {GRAPHS} graphs of {NODES} nodes, {DENSITY:.0%} of pairs with an edge"
    values = medians([_layer(name) for name in names])
    return [
        row(f"graph_attention/{name}", value, values[0], "ms", f"{what}; reference: dense")
        for name, value in zip(names, values, strict=True)
    ]


def _layer(name: str) -> Callable[[], None]:
    """A forward and backward pass of a layer of the default width, on the same random graphs for every backend."""
    import torch

    from ragaf_exp.config.build import build
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.models.regions.encoder import GraphAttention

    backend = build(compose_config([f"graph/backend={name}"]).graph_backend, "graph_backend")
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randn(GRAPHS, NODES, WIDTH, generator=generator, requires_grad=True)
    mask = torch.rand(GRAPHS, NODES, NODES, generator=generator) < DENSITY
    edges = torch.randn(GRAPHS, NODES, NODES, EDGE_FEATURES, generator=generator) * mask[..., None]
    return partial(_pass, GraphAttention(WIDTH, HEADS, EDGE_FEATURES), backend, nodes, edges, mask)


def _pass(layer, backend, nodes, edges, mask) -> None:
    layer(nodes, backend.lay_out(edges, mask)).sum().backward()
