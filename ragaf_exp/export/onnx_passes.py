"""Copies of an ONNX graph for further passes of a step, as guidance takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def another_pass(step: Any, prefix: str) -> Any:
    """Copy a step's graph for another pass with the same x_t, t and weights.

    Args:
        step: The graph of a denoising step. Its first inputs are x_t and t.
        prefix: Of the names of the copy's conditions and results.

    Returns:
        The copy, without weights.
    """
    from onnx import GraphProto

    copy = GraphProto()
    copy.CopyFrom(step)
    del copy.initializer[:], copy.value_info[:]
    for given in copy.input[2:]:
        for dimension in given.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = f"{prefix}{dimension.dim_param}"
    results = [name for node in step.node for name in node.output if name]
    names = {name: f"{prefix}{name}" for name in (*(given.name for given in step.input[2:]), *results)}
    for value in (*copy.input[2:], *copy.output):
        value.name = names.get(value.name, value.name)
    _rename(copy.node, names, prefix)
    return copy


def _rename(nodes: Iterable[Any], names: Mapping[str, str], prefix: str) -> None:
    """Rename what nodes read and write, in the graphs of their attributes too."""
    for node in nodes:
        node.name = f"{prefix}{node.name}" if node.name else ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _rename(graph.node, names, prefix)
                for value in graph.output:
                    value.name = names.get(value.name, value.name)
