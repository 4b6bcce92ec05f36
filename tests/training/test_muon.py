"""Muon for the matrices of linear layers, AdamW for all else, as one optimizer (config key optim.muon)."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ragaf_exp.config.schema import Optim
from ragaf_exp.training import muon
from ragaf_exp.training.optimizer import Optimizers, make_optimizer, optimizer_state, restore_optimizer

MUON = Optim(muon=3.0, weight_decay=0.0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.frozen, self.out = nn.Linear(8, 8), nn.Linear(8, 4)
        self.frozen.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.out(self.frozen(x + self.attention(x, x, x, need_weights=False)[0]))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def step(model: Net, optimizer: Optimizers, seed: int) -> None:
    torch.manual_seed(seed)
    model(torch.randint(5, (3, 4))).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_muon_takes_trained_matrices_and_nothing_else():
    model = net()
    decayed, free, muon = make_optimizer(model, 1e-3, MUON).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(p)] for p in muon["params"]] == [
        "attention.in_proj_weight", "attention.out_proj.weight", "out.weight"
    ]  # fmt: skip
    assert {names[id(p)] for p in decayed["params"]} == {"words.weight", "conv.weight"}
    assert all(p.ndim == 1 for p in free["params"])
    assert muon["lr"] == pytest.approx(3e-3) and muon["relative"] == 3.0 and decayed["lr"] == 1e-3


def test_without_muon_it_is_adamw_itself():
    assert isinstance(make_optimizer(net(), 1e-3, Optim()), torch.optim.AdamW)


def test_a_matrix_moves_along_orthonormal_directions():
    """Every direction of a gradient, also a weak one, is followed as far as the strongest."""
    model = nn.Linear(16, 16, bias=False)
    before = model.weight.detach().clone()
    left, right = (torch.linalg.qr(torch.randn(16, 16))[0] for _ in range(2))
    model.weight.grad = left @ torch.diag(torch.logspace(0, -1.5, 16)) @ right
    make_optimizer(model, 1e-2, MUON).step()
    moved = torch.linalg.svdvals(before - model.weight.detach())
    assert moved.min() > 0.5 * moved.max() > 0


def test_resumed_it_goes_on_to_the_bit():
    through, first = net(), net()
    optimizer = make_optimizer(through, 1e-2, MUON)
    for seed in range(4):
        step(through, optimizer, seed)
    optimizer = make_optimizer(first, 1e-2, MUON)
    for seed in range(2):
        step(first, optimizer, seed)
    second = copy.deepcopy(first)
    resumed = make_optimizer(second, 1e-2, MUON)
    restore_optimizer(second, resumed, optimizer_state(first, optimizer))
    for seed in range(2, 4):
        step(second, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), second.parameters(), strict=True))


def test_stepped_within_the_backward_pass_it_is_the_same():
    plain, within = net(), net()
    optimizers = make_optimizer(plain, 1e-2, MUON), make_optimizer(within, 1e-2, MUON, in_backward=True)
    for seed in range(3):
        step(plain, optimizers[0], seed)
        step(within, optimizers[1], seed)
    assert all(p.grad is None for p in within.parameters())
    for a, b in zip(plain.parameters(), within.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_stacked_matrices_move_as_pytorchs_own_move_them():
    """Matrices of several shapes: tall, wide and square, one without a gradient."""
    torch.manual_seed(0)
    shapes = [(8, 8), (16, 4), (8, 8), (4, 16), (8, 8), (1, 5)]
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 0.1}
    optimizers = (muon.Muon([{"params": ours, **settings}]),
                  torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw"))  # fmt: skip
    for _ in range(3):
        for i, shape in enumerate(shapes[:-1]):
            ours[i].grad = theirs[i].grad = torch.randn(shape)
        for optimizer in optimizers:
            optimizer.step()
    for mine, wanted, before in zip(ours, theirs, start, strict=True):
        moved = float((wanted.detach() - before).norm())
        assert float((mine - wanted).detach().norm()) <= 0.02 * moved
    assert torch.equal(ours[-1], start[-1])
    assert [len(places) for places in muon.alike(ours)] == [3, 1, 1, 1]


def test_large_matrices_are_not_stacked(monkeypatch):
    monkeypatch.setattr(muon, "STACK", 100)
    matrices = [torch.zeros(8, 8)] * 2 + [torch.zeros(5, 5)] * 5
    assert list(muon.alike(matrices)) == [[0], [1], [2, 3, 4, 5], [6]]
