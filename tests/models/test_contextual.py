"""Contextual attention: windows, the mask of valid tokens, and a diffusion transformer that gets it from a task."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones.dit import DiT
from ragaf_exp.models.backbones.token_attention import SelfAttention
from ragaf_exp.models.backbones.windows import Windows, contextual
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.inputs import Inputs
from ragaf_exp.tasks.holes import HoleTask
from ragaf_exp.tasks.inpaint import Inpaint

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def text() -> Text:
    rng = torch.Generator().manual_seed(5)
    return Text(torch.randn(2, 3, 8, generator=rng), torch.ones(2, 3, dtype=torch.bool))


def network(**options) -> DiT:
    """A small network (channels 12, text width 8, codec patches of 2) whose zero-initialised weights are random."""
    torch.manual_seed(0)
    net = DiT(12, 8, 2, **{"width": 32, "depth": 2, "heads": 2, "patch_size": 1, **options})
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return net.eval()


# --- windows


@given(SIZES, st.integers(2, 5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_joining_reverses_splitting_at_any_size(size, window, shifted):
    windows = Windows.over(size, window, shifted)
    x = torch.randn(2, 3, size[0] * size[1], 4)
    split = windows.split(x)  # (2n,3,s,4)
    assert split.shape[2] <= window**2
    torch.testing.assert_close(windows.join(split.transpose(1, 2).flatten(2)), x.transpose(1, 2).flatten(2))


@given(SIZES, st.integers(2, 5), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_valid_tokens_stay_valid_and_no_row_is_without_keys(size, window, shifted, seed):
    windows = Windows.over(size, window, shifted)
    valid = torch.rand(2, size[0] * size[1], generator=torch.Generator().manual_seed(seed)) < 0.2
    assert (windows.spread(valid) | ~valid).all()
    assert (windows.bias(valid) == 0).any(-1).all(), "each window attends to something"


def test_the_mask_spreads_over_windows_by_hand():
    """Windows of 2 x 2 on a grid of 4 x 4 with one valid token at row 0, column 1."""
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 0, 1] = True
    first = Windows.over((4, 4), 2, shifted=False).spread(valid.flatten(1)).view(4, 4)
    assert first.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    # shifted by 1, the rows fall into 0 | 1 2 | 3, and the columns too
    second = Windows.over((4, 4), 2, shifted=True).spread(first.flatten()[None]).view(4, 4)
    assert second.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_the_bias_excludes_invalid_tokens_unless_none_is_valid():
    valid = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)  # windows of 2 x 2: left and right half
    bias = next(contextual(valid, 2)).bias[:, 0, 0]
    assert (bias == 0).tolist() == [[True, False, False, False], [True, True, True, True]]


def test_every_other_block_is_shifted_and_a_grid_of_one_window_never():
    blocks = contextual(torch.ones(1, 8, 3, dtype=torch.bool), 4)
    assert [next(blocks).windows.shift for _ in range(3)] == [(0, 0), (2, 0), (0, 0)]


# --- attention


def attention() -> SelfAttention:
    torch.manual_seed(1)
    return SelfAttention(16, 2)


def attended(x: Tensor, valid: Tensor, window: int = 2) -> Tensor:
    return attention()(x, None, next(contextual(valid, window)))


def test_invalid_tokens_do_not_influence_others_in_the_first_block():
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[0, 1:3, 1:4] = False
    x = torch.randn(1, 24, 16)
    changed = x.clone()
    changed[~valid.flatten(1)] += 3
    plain, other = attended(x, valid), attended(changed, valid)
    torch.testing.assert_close(plain[valid.flatten(1)], other[valid.flatten(1)], rtol=0, atol=0)
    # the same change of valid tokens does reach the invalid ones
    moved = x.clone()
    moved[valid.flatten(1)] += torch.randn(16)
    assert (attended(moved, valid)[~valid.flatten(1)] - plain[~valid.flatten(1)]).abs().amin(-1).max() > 0


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (1, 7)])
def test_one_window_of_valid_tokens_is_full_attention(size):
    x, valid = torch.randn(2, size[0] * size[1], 16), torch.ones(2, *size, dtype=torch.bool)
    torch.testing.assert_close(attended(x, valid, 8), attention()(x, None))


@pytest.mark.parametrize("positions", ["rotary", "sincos"])
def test_the_network_equals_full_attention_if_all_is_valid_and_one_window_covers_the_grid(positions):
    full, own = (network(attention=kind, window=8, positions=positions) for kind in ("full", "contextual"))
    own.load_state_dict(full.state_dict())  # the same weights
    x, t = torch.randn(2, 12, 6, 4), torch.tensor([1.0, 900.0])
    torch.testing.assert_close(own(x, t, text(), {}), full(x, t, text(), {}))
    valid = torch.ones(2, 1, 6, 4, dtype=torch.bool)
    torch.testing.assert_close(own(x, t, text(), {}, valid=valid), full(x, t, text(), {}))
    valid[:, :, 2:4, 1:3] = False
    assert not torch.allclose(own(x, t, text(), {}, valid=valid), full(x, t, text(), {}))


@pytest.mark.parametrize("size", [(2, 2), (6, 14), (18, 4)])
def test_latents_of_any_size_and_aspect(size):
    net = network(attention="contextual", patch_size=2)
    x = torch.randn(2, 12, *size)
    valid = torch.rand(2, 1, *size) < 0.5
    out = net(x, torch.tensor([1.0, 900.0]), text(), {}, valid=valid)
    assert out.shape == x.shape and out.isfinite().all()


def test_a_token_is_valid_with_one_known_cell():
    net = network(attention="contextual", patch_size=2)
    valid = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    valid[0, 0, 0, 1] = True
    assert net._valid_tokens(torch.zeros(1, 12, 4, 4), valid).tolist() == [[[True, False], [False, False]]]


# --- tasks and config


def test_tasks_say_what_their_hole_hides():
    x_t = torch.zeros(2, 12, 4, 4)
    hole = torch.zeros(2, 1, 4, 4)
    hole[:, :, 1] = 1
    extra = torch.cat([hole, torch.randn(2, 12, 4, 4)], dim=1)
    task: HoleTask = Inpaint()
    for channels in (extra, torch.cat([torch.zeros(2, 5, 4, 4), extra], dim=1)):  # alone, and behind another task's
        mask = task.valid(x_t, channels)
        assert mask is not None and torch.equal(mask, hole == 0)
    assert Inputs().valid(x_t, None) is None, "a task without a hole hides nothing"


def test_unknown_kinds_are_refused():
    with pytest.raises(UserError, match=r"backbone\.attention=windows: must be full or contextual|backbone\.attention"):
        compose_config(["backbone=dit", "backbone.attention=windows"])
