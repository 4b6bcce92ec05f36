"""Clipping within the optimizer's step: the same weights as torch's own clipping before it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ragaf_exp.config.schema import Optim
from ragaf_exp.training.clipping import clipped
from ragaf_exp.training.optimizer import inner, make_optimizer


def trained(model: nn.Module, muon: float, most: float, by_torch: bool) -> dict[str, torch.Tensor]:
    """The weights after three steps on gradients of very different norms."""
    optimizer = make_optimizer(model, 1e-2, Optim(muon=muon))
    for step, size in enumerate((100.0, 1e-3, 7.0)):
        generator = torch.Generator().manual_seed(step)
        for p in model.parameters():
            p.grad = size * torch.randn(p.shape, generator=generator)
        if by_torch:
            nn.utils.clip_grad_norm_(model.parameters(), most)
            optimizer.step()
        else:
            with clipped(model, optimizer, most):
                optimizer.step()
            parts = getattr(inner(optimizer), "parts", [optimizer])
            assert not any(hasattr(part, "grad_scale") for part in parts)
    return model.state_dict()


@pytest.mark.parametrize("muon", [0.0, 3.0])
def test_it_is_torchs_clipping_to_rounding(muon):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.LayerNorm(8))
    wanted, result = (trained(copy.deepcopy(model), muon, 1.0, by_torch) for by_torch in (True, False))
    for name in wanted:
        torch.testing.assert_close(result[name], wanted[name], rtol=1e-5, atol=1e-6)
    unclipped = trained(copy.deepcopy(model), muon, 1e9, True)
    assert any(not torch.allclose(unclipped[name], wanted[name], atol=1e-5) for name in wanted), "the bound matters here"


def test_without_a_bound_gradients_stay_as_they_are():
    model = nn.Linear(2, 2)
    optimizer = make_optimizer(model, 1e-2, Optim())
    model.weight.grad = torch.full((2, 2), 100.0)
    with clipped(model, optimizer, 0.0):
        assert not hasattr(optimizer, "grad_scale") and bool((model.weight.grad == 100).all())
