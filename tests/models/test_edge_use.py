"""`ragaf.edges`: where edge features act, and that a set transformer does not distinguish the order of regions."""

from __future__ import annotations

import pytest
import torch

from ragaf_exp.graph.backends.dense import Dense
from ragaf_exp.models.regions.encoder import GraphAttention


def attended(use: str, features: torch.Tensor, backend=None) -> torch.Tensor:
    torch.manual_seed(0)
    layer = GraphAttention(8, 2, features.shape[-1], use)
    torch.manual_seed(1)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    nodes = torch.randn(1, features.shape[1], 8)
    mask = torch.ones(features.shape[:3], dtype=torch.bool)
    return layer(nodes, (backend or Dense()).lay_out(features, mask))


@pytest.mark.parametrize(("use", "depends"), [("all", True), ("bias", True), ("none", False)])
def test_edge_features_act_where_they_should(use, depends):
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(1, 4, 4, 3, generator=generator) for _ in range(2))
    assert torch.equal(attended(use, first), attended(use, second)) != depends


def test_features_in_the_logits_alone_do_not_reach_a_region_with_one_neighbour():
    """With one neighbour its weight is 1 whatever the bias, so only values can carry the edge's features."""
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(1, 1, 1, 3, generator=generator) for _ in range(2))
    assert torch.equal(attended("bias", first), attended("bias", second))
    assert not torch.equal(attended("all", first), attended("all", second))


def test_it_has_no_unused_weights():
    names = {use: {name.split(".")[0] for name, _ in GraphAttention(8, 2, 3, use).named_parameters()}
             for use in ("all", "bias", "none")}  # fmt: skip
    assert names["all"] - names["bias"] == {"edge_value"} and names["bias"] - names["none"] == {"edge_bias"}
