"""Frozen linear layers stored in fewer bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_runs import config, overrides
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import save_flux
from torch import nn

from ragaf_exp import run
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.training import Training
from ragaf_exp.models.stored import StoredLinear, store_linears
from ragaf_exp.runs.folder import RunFolder


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 40), st.sampled_from(["bfloat16", "float8", "int8"]))
def test_outputs_and_gradients_are_those_of_the_rounded_weight(seed, rows, width, base):
    torch.manual_seed(seed)
    layer = nn.Linear(width, 7)
    x = torch.randn(rows, width, requires_grad=True)
    stored = StoredLinear(layer, base)
    weight = stored._restored(stored.weight, torch.float32)
    error = (weight - layer.weight).abs() / layer.weight.abs().amax(1, keepdim=True)
    assert error.max() <= {"bfloat16": 2**-8, "float8": 2**-4, "int8": 1 / 253}[base] and stored.weight.element_size() <= 2
    wanted = torch.nn.functional.linear(x, weight, layer.bias)
    torch.testing.assert_close(stored(x), wanted)
    direction = torch.randn_like(wanted)
    (gradient,) = torch.autograd.grad((stored(x) * direction).sum(), x)
    torch.testing.assert_close(gradient, direction @ weight)


def test_nf4_restores_what_bitsandbytes_stores(monkeypatch):
    """On the CPU, where bitsandbytes has the same functions; runs need CUDA."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    layer = nn.Linear(128, 32)
    stored = StoredLinear(layer, "nf4")
    restored = stored._restored(stored.weight, torch.float32)
    assert stored.weight.nbytes == 128 * 32 // 2 and restored.shape == (32, 128)
    assert (restored - layer.weight).abs().max() < 0.2 * layer.weight.abs().max()
    x = torch.randn(5, 128)
    torch.testing.assert_close(stored(x), torch.nn.functional.linear(x, restored, layer.bias))


def test_sizes_of_nf4_on_the_meta_device():
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(256, 128), nn.Linear(128, 64))
        x = torch.empty(3, 256, requires_grad=True)
    store_linears([net], "nf4")
    assert [p.nbytes for p in (net[0].weight, net[0].scale)] == [256 * 128 // 2, 256 * 128 // 64 * 4]
    assert net(x).shape == (3, 64) and torch.autograd.grad(net(x).sum(), x)[0].shape == (3, 256)


@pytest.mark.parametrize(("base", "dtype"), [("bfloat16", torch.bfloat16), ("int8", torch.int8)])
def test_lora_trains_on_a_base_in_fewer_bits(tiny, tmp_path, base, dtype):
    folder = save_flux(tmp_path / "flux")
    more = [f"memory.base={base}", "memory.tune=lora", "memory.lora_rank=2", "optim.warmup=0"]
    cfg = config(tiny, "flux", folder, tmp_path, *more)
    training = Training(cfg, RunFolder.create(cfg))
    batch = collate([training.train_examples[i] for i in range(2)])
    coarse = training.trainer(COARSE, {})
    refine = training.trainer(REFINE, {COARSE: coarse.ema.model})
    for trainer in (coarse, refine):
        before = {name: p.detach().clone() for name, p in trainer.bare.backbone.named_parameters()}
        for step in (trainer.plan.steps - 2, trainer.plan.steps - 1):
            trainer.step(step, batch)
        changed = {n for n, p in trainer.bare.backbone.named_parameters() if not torch.equal(p, before[n])}
        assert changed and all(".lora_" in name for name in changed)
        stored = [p for p in trainer.bare.backbone.parameters() if p.dtype == dtype]
        assert sum(p.numel() for p in stored) > 0.5 * sum(p.numel() for p in before.values())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["memory.base=float8"], ("memory.base=float8", "CUDA", "bfloat16")),
        (["memory.base=nf4"], ("memory.base=nf4", "CUDA")),
        (["memory.base=bfloat16", "memory.tune=full"], ("memory.base=bfloat16", "memory.tune=lora")),
    ],
)
def test_bases_that_do_not_fit(more, says, tiny, tmp_path: Path, refused):
    refused(run.command_line, *overrides(tiny, "flux", save_flux(tmp_path / "flux"), tmp_path, *more), says=says)


def test_a_unet_has_no_such_base(tiny, tmp_path, refused):
    refused(run.command_line, *tiny, "memory.base=bfloat16", f"runs={tmp_path}", says=("memory.base=bfloat16", "float32"))
