"""Graph attention's backends: one module, one set of weights, one result; and refusals of those that can't run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.commands.benches.graph_attention import graph_attention
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config, load_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.data.loader import collate
from ragaf_exp.graph.backends.base import Backend, wide
from ragaf_exp.graph.backends.dense import Dense
from ragaf_exp.graph.backends.dgl_backend import load_dgl
from ragaf_exp.graph.backends.pyg import load_pyg
from ragaf_exp.models.regions.encoder import GraphAttention
from ragaf_exp.run import command_line
from ragaf_exp.runs.folder import RunFolder

LIBRARY = {"dense": "torch", "dgl": "dgl", "pyg": "torch_geometric"}
WIDTH, HEADS, EDGE_FEATURES = 16, 4, 3
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def needs(name: str):
    """A backend's name as a test's parameter, skipped where its library is absent."""
    absent = importlib.util.find_spec(LIBRARY[name]) is None
    return pytest.param(name, marks=pytest.mark.skipif(absent, reason=f"{LIBRARY[name]} is not installed"))


EVERY, SPARSE = [needs(name) for name in LIBRARY], [needs("dgl"), needs("pyg")]


def backend(name: str) -> Backend:
    return build(OmegaConf.load(CONF / "graph" / "backend" / f"{name}.yaml"), "graph_backend")


def graphs(counts: list[int], density: float, seed: int = 0, padding: int = 0) -> tuple[torch.Tensor, ...]:
    """Random nodes (B,N,R), edges (B,N,N,E) and edge_mask of so many nodes each, with that many more of padding."""
    torch.manual_seed(seed)
    size = max(1, *counts) + padding
    real = torch.arange(size) < torch.tensor(counts)[:, None]
    mask = (torch.rand(len(counts), size, size) < density) & real[:, None] & real[:, :, None]
    nodes = torch.randn(len(counts), size, WIDTH)
    return nodes, torch.randn(len(counts), size, size, EDGE_FEATURES) * mask[..., None], mask


@pytest.fixture(scope="module")
def attention() -> GraphAttention:
    torch.manual_seed(0)
    return GraphAttention(WIDTH, HEADS, EDGE_FEATURES)


def passes(attention: GraphAttention, name: str, nodes, edges, mask) -> dict[str, torch.Tensor]:
    """Output of a backend, and its gradients with respect to inputs and parameters."""
    attention.zero_grad()
    nodes, edges = nodes.clone().requires_grad_(), edges.clone().requires_grad_()
    out = attention(nodes, backend(name).lay_out(edges, mask))
    torch.manual_seed(1)
    (out * torch.randn(out.shape, dtype=out.dtype)).sum().backward()
    gradients = {key: parameter.grad.clone() for key, parameter in attention.named_parameters()}
    return {"output": out.detach(), "nodes": nodes.grad, "edges": edges.grad, **gradients}


BATCHES = st.tuples(
    st.lists(st.integers(0, 9), min_size=1, max_size=5), st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.integers(0, 2**16), st.integers(0, 3),
)  # fmt: skip


@pytest.mark.parametrize("name", SPARSE)
@settings(max_examples=40, deadline=None)
@given(batch=BATCHES)
def test_outputs_and_gradients_equal_those_of_the_dense_backend(name, attention, batch):
    made = graphs(*batch)
    wanted, result = passes(attention, "dense", *made), passes(attention, name, *made)
    for what, value in wanted.items():
        torch.testing.assert_close(result[what], value, **CLOSE, msg=lambda text, what=what: f"{what}: {text}")


@pytest.mark.parametrize("name", EVERY)
def test_attention_equals_its_definition(name):
    """attend agrees with a loop over nodes and neighbours, in float64."""
    torch.manual_seed(3)
    _, edges, mask = graphs([5, 0, 3], 0.6)
    edges = edges.double()
    q, k, v = torch.randn(3, 3, 5, HEADS, 4, dtype=torch.float64)
    laid = backend(name).lay_out(edges, mask)
    bias = torch.randn(int(mask.sum()), HEADS, dtype=torch.float64)
    y, recorded = laid.attend(q, k, v, bias)
    assert torch.equal(laid.features, edges[mask]) and torch.equal(laid.connected[..., 0], mask.any(-1))
    all_bias = torch.zeros(*mask.shape, HEADS, dtype=torch.float64)
    all_bias[mask] = bias
    for b, i in mask.any(-1).nonzero().tolist():
        js = mask[b, i].nonzero()[:, 0]
        weights = ((q[b, i] * k[b, js]).sum(-1) / 4**0.5 + all_bias[b, i, js]).softmax(0)  # (neighbours,H)
        torch.testing.assert_close(y[b, i], (weights[..., None] * v[b, js]).sum(0).flatten())
        torch.testing.assert_close(recorded[b, i], (weights[..., None] * edges[b, i, js][:, None]).sum(0).flatten())


@pytest.mark.parametrize("name", EVERY)
def test_a_node_without_neighbours_is_left_as_it_is(name, attention):
    nodes, edges, mask = graphs([6, 4, 0], 0.5, padding=2)
    mask[0, 2] = False  # it attends to none, others attend to it
    out = attention(nodes, backend(name).lay_out(edges, mask))
    alone = ~mask.any(-1)
    assert alone[0, 2] and alone[2].all() and torch.equal(out[alone], nodes[alone])
    assert not torch.isclose(out[~alone], nodes[~alone]).all(-1).any()


@pytest.mark.parametrize("name", EVERY)
def test_no_edges_at_all(name, attention):
    result = passes(attention, name, *graphs([3, 2], 0.0))
    assert torch.equal(result.pop("output"), graphs([3, 2], 0.0)[0])
    assert all(gradient.isfinite().all() for gradient in result.values())
    assert not any(result[key].any() for key, _ in attention.named_parameters())


@pytest.mark.parametrize("name", EVERY)
def test_padding_never_changes_what_real_nodes_get(name, attention):
    nodes, edges, mask = graphs([4, 2], 0.7, padding=3)
    real = torch.arange(nodes.shape[1]) < torch.tensor([4, 2])[:, None]
    out = attention(nodes, backend(name).lay_out(edges, mask))
    other = torch.where(real[..., None], nodes, 50 * torch.randn_like(nodes))
    others = torch.where(mask[..., None], edges, 50 * torch.randn_like(edges))
    changed = attention(other, backend(name).lay_out(others, mask))
    torch.testing.assert_close(changed[real], out[real], rtol=0, atol=1e-6)
    cut = attention(nodes[:, :4], backend(name).lay_out(edges[:, :4, :4], mask[:, :4, :4]))
    torch.testing.assert_close(cut[real[:, :4]], out[real], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast_is_close_to_float32(name, dtype, attention):
    made = graphs([6, 3, 0], 0.5, padding=1)
    exact = passes(attention, "dense", *made)
    with torch.autocast("cpu", dtype):
        result = passes(attention, name, *made)
    for what, value in exact.items():
        assert result[what].isfinite().all()
        error = (result[what] - value).abs().max() / value.abs().max()
        assert error < 0.03, f"{what} is off by {error:.1%}"


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype(name, dtype, attention):
    nodes, edges, mask = graphs([6, 3, 0], 0.5, padding=1)
    exact = attention(nodes, Dense().lay_out(edges, mask))
    torch.manual_seed(0)
    typed = GraphAttention(WIDTH, HEADS, EDGE_FEATURES).to(dtype)
    out = typed(nodes.to(dtype), backend(name).lay_out(edges.to(dtype), mask))
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(out.float(), exact, rtol=tolerance, atol=tolerance)


def test_float64_is_not_rounded_to_float32():
    assert [wide(torch.zeros(1, dtype=kind)).dtype for kind in (torch.bfloat16, torch.float32, torch.float64)] == [
        torch.float32, torch.float32, torch.float64,
    ]  # fmt: skip


# --- in the whole model


@pytest.mark.parametrize("name", SPARSE)
def test_a_model_reads_the_weights_of_another_backend(name, tiny, tmp_path):
    cfgs = [compose_config([*tiny, "graph=knn", "ragaf.layers=2", f"graph/backend={key}"]) for key in ("dense", name)]
    models = [make_model(assemble(cfg, RunFolder(tmp_path)), "refine").eval() for cfg in cfgs]
    assert models[0].state_dict().keys() == models[1].state_dict().keys()
    models[1].load_state_dict(models[0].state_dict())
    parts = assemble(cfgs[0], RunFolder(tmp_path))
    batch = collate([parts.examples("train")[i] for i in range(5)])
    with torch.no_grad():
        dense, other = (model.condition(batch).regions for model in models)
    assert dense.structure.abs().max() > 0.1
    torch.testing.assert_close(other.structure, dense.structure, **CLOSE)
    torch.testing.assert_close(other.semantics, dense.semantics, **CLOSE)


# --- where a backend can't run


@pytest.mark.parametrize(("name", "load"), [("dgl", load_dgl), ("pyg", load_pyg)])
def test_a_missing_library_is_one_line_before_any_work(name, load, tiny, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, LIBRARY[name], None)  # as if it were not installed
    load.cache_clear()
    says = (f"graph/backend={name}", f"{LIBRARY[name]} ", f"pip install 'ragaf_exp[{name}]'", "graph/backend=dense")
    refused(command_line, *tiny, f"graph/backend={name}", f"runs={tmp_path}", says=says)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("name", [needs("dgl")])
def test_dgl_refuses_tensors_that_are_not_in_the_processors_memory(name):
    edges, mask = torch.zeros(1, 2, 2, 3, device="meta"), torch.zeros(1, 2, 2, dtype=torch.bool, device="meta")
    with pytest.raises(UserError, match="graph/backend=dgl: .* not on meta; take graph/backend=dense"):
        backend(name).lay_out(edges, mask)


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("name", EVERY)
def test_dgl_on_a_cuda_device_is_refused_before_training(name, device, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    words = [word for word in tiny if not word.startswith("memory.device")]
    cfg = compose_config([*words, f"memory.device={device}", f"graph/backend={name}"])
    if name == "dgl":
        with pytest.raises(UserError, match="graph/backend=dgl: .* not on cuda; .*memory.device=cpu"):
            assemble(cfg, RunFolder(tmp_path))
    else:
        make_model(assemble(cfg, RunFolder(tmp_path)), "refine")


# --- what importing the libraries must not do


@pytest.mark.long
@pytest.mark.parametrize("name", SPARSE)
def test_loading_a_library_is_silent_and_leaves_nothing_behind(name, tmp_path):
    module = {"dgl": "dgl_backend", "pyg": "pyg"}[name]
    lines = (
        f"from ragaf_exp.graph.backends.{module} import load_{name} as load",
        "import sys",
        "assert load() is load() is sys.modules[load().__name__]",
        "assert 'dgl.graphbolt' not in sys.modules and not hasattr(load(), 'graphbolt')",
    )
    env = {key: value for key, value in os.environ.items() if key != "DGLBACKEND"} | {"HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=env, capture_output=True, text=True, timeout=240)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# --- the config group


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("graph/backend=nope", ("graph/backend=nope", "dense, dgl, pyg")),
        ("graph/backend=3", ("graph/backend=3", "conf/graph/backend/", "dense, dgl, pyg")),
        ("graph_backend=dgl", ("graph_backend=dgl", "conf/graph/backend/", "graph/backend=OPTION")),
        ("~graph/backend", ("graph_backend: missing", "conf/graph/backend/")),
        ("graph_backend._target_=torch.load", ("graph_backend._target_=torch.load",)),
    ],
)
def test_mistakes_in_the_choice_are_one_line(override, says, refused, tiny, tmp_path):
    refused(command_line, *tiny, f"runs={tmp_path / 'runs'}", override, says=says)


def test_a_run_folder_from_before_the_group_says_what_is_missing(run_copy):
    path = run_copy / "config.yaml"
    cfg = OmegaConf.load(path)
    del cfg["graph_backend"]
    path.write_text(OmegaConf.to_yaml(cfg))
    with pytest.raises(UserError, match="graph_backend: missing; choose an option of the group conf/graph/backend/"):
        load_config(path)


# --- the benchmark


def test_the_benchmark_measures_every_installed_backend(monkeypatch):
    monkeypatch.setattr("ragaf_exp.commands.benches.timing.TURNS", 1)
    rows = graph_attention()
    assert [row["name"] for row in rows][:1] == ["graph_attention/dense"] and rows[0]["ratio"] == 1
    installed = [name for name, library in LIBRARY.items() if importlib.util.find_spec(library)]
    assert [row["name"] for row in rows] == [f"graph_attention/{name}" for name in installed]
    assert all(row["unit"] == "ms" and row["value"] > 0 and row["reference"] == rows[0]["value"] for row in rows)
