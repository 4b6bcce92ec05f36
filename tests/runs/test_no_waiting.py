"""A training step asks the device for no value and runs no loop over items or regions.

On the meta device tensors have no values: whatever would make the host wait for one (item, a branch on a tensor,
nonzero, indexing by a mask, bincount, a copy to the host) raises there. Loops show in the number of operations.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Loss
from ragaf_exp.core.types import Batch
from ragaf_exp.data.loader import collate
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.graph.backends.dense import DenseEdges, PaddedEdges
from ragaf_exp.models.regions.encoder import GraphAttention
from ragaf_exp.regions.soft_masks import soft_masks
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import sample_step_noise

META = torch.device("meta")
EVERYTHING = """
    loss.region_moments=1 loss.region_texture=1 loss.contrastive=1 loss.coverage=1 loss.entropy=1 loss.spans=1
    ragaf.pooled_levels=0 ragaf.timestep=true ragaf.learn_temperature=true injection.words=true
""".split()
OPTIONS = [[], EVERYTHING, [*EVERYTHING, "injection=cross", "fusion=gated"], ["injection=film", "fusion=hybrid"]]


# how autograd keeps a gradient whose memory is laid out otherwise
KEEPING = {f"aten.{name}.default" for name in ("detach", "new_empty_strided", "copy_", "clone")}


class Counted(TorchDispatchMode):
    """How many operations are dispatched to the meta device, and by name."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    """It knows no meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


@pytest.fixture(scope="module")
def world(tiny, tmp_path_factory):
    return assemble(compose_config(tiny), RunFolder(tmp_path_factory.mktemp("waiting")))


@pytest.fixture(scope="module")
def batch(world) -> Batch:
    return collate([world.examples("train")[i] for i in range(2)], spans=True)


def more(batch: Batch, items: int = 1, regions: int = 0) -> Batch:
    """The batch so many times over, with room for so many more regions."""
    pad = torch.nn.functional.pad
    room = {"nodes": (0, 0, 0, regions), "spans": (0, 0, 0, regions), "node_mask": (0, regions),
            "edge_mask": (0, regions, 0, regions), "edges": (0, 0, 0, regions, 0, regions)}  # fmt: skip
    tensors = {k: v for k, v in vars(batch).items() if isinstance(v, torch.Tensor)}
    tensors = {k: pad(v, room[k]) if k in room else v for k, v in tensors.items()}
    tensors = {k: v.repeat(items, *[1] * (v.ndim - 1)) for k, v in tensors.items()}
    return replace(batch, keys=batch.keys * items, captions=batch.captions * items, **tensors)


def operations(world, tiny, words: list[str], batch: Batch, regions_only: bool = False) -> tuple[list[str], list[str]]:
    """Operations of the forward and the backward pass of a stage 2 training step, on the meta device."""
    cfg = compose_config([*tiny, *words])
    with META:
        model = make_model(replace(world, cfg=cfg), "refine")
        objective = Objective(Diffusion(), Loss(**cfg.loss))
    x0 = world.codec.encode(batch.image)
    dropout, rng = {"text": 0.1, "sketch": 0.1}, torch.Generator().manual_seed(0)
    drawn = sample_step_noise(Diffusion(), x0.shape, 900, dropout, 0.5, rng).to(META)
    with Counted() as forward:
        loss = objective(model, batch.to(META), x0.to(META), drawn, regions_only)["loss"]
    with Counted() as backward:
        loss.backward()
    return forward.names, [name for name in backward.names if name not in KEEPING]


@pytest.mark.long
@pytest.mark.parametrize("regions_only", [False, True])
@pytest.mark.parametrize("words", OPTIONS, ids=["default", "everything", "cross", "film"])
def test_a_step_waits_for_nothing_and_grows_by_no_operation(words, regions_only, world, tiny, batch):
    base = operations(world, tiny, words, batch, regions_only)
    assert min(map(len, base)) > 200
    for bigger in (more(batch, items=3), more(batch, regions=4)):
        assert operations(world, tiny, words, bigger, regions_only) == base


@pytest.mark.parametrize("waits", [
    lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.cpu(),
    lambda x: torch.bincount(x.long()), lambda x: x.tolist(),
])  # fmt: skip
def test_the_meta_device_refuses_what_would_wait(waits):
    with pytest.raises((RuntimeError, NotImplementedError)):
        waits(torch.ones(3, device=META))


# --- what replaced operations that wait


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_padded_edges_attend_as_listed_ones_do(density):
    torch.manual_seed(0)
    attention = GraphAttention(16, 4, 3)
    mask = torch.rand(3, 5, 5) < density
    edges, nodes = torch.randn(3, 5, 5, 3), torch.randn(3, 5, 16)
    result = []
    for kind in (DenseEdges, PaddedEdges):
        attention.zero_grad()
        out = attention(nodes, kind(edges, mask))
        out.square().sum().backward()
        result.append([out.detach(), *(p.grad.clone() for p in attention.parameters())])
    for listed, padded in zip(*result, strict=True):
        torch.testing.assert_close(padded, listed, rtol=1e-4, atol=1e-5)


def test_soft_masks_do_not_depend_on_how_many_items_there_are():
    labels = torch.randint(-1, 4, (5, 16, 24), generator=torch.Generator().manual_seed(0))
    masks = soft_masks(labels, 4, (4, 6))
    assert masks.dtype == torch.float32 and masks.shape == (5, 4, 4, 6)
    hot = (labels[:, None] == torch.arange(4)[:, None, None]).float()
    assert torch.equal(masks, torch.nn.functional.avg_pool2d(hot, 4))
    assert torch.equal(soft_masks(labels[2:3], 4, (4, 6)), masks[2:3])
