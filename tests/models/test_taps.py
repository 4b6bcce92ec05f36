"""Shapes at a UNet's injection points: the layout gives those of a forward pass."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from ragaf_exp.models.backbones import taps

DOWN, CROSS_DOWN, UP, CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"
LEVELS = {
    "stable diffusion": ((CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN), (UP, CROSS_UP, CROSS_UP, CROSS_UP)),
    "attention everywhere": ((CROSS_DOWN, CROSS_DOWN), (CROSS_UP, CROSS_UP)),
    "none at the edges": ((DOWN, CROSS_DOWN, DOWN), (UP, CROSS_UP, UP)),
    "one level": ((CROSS_DOWN,), (CROSS_UP,)),
}


def unet(levels: str, layers: int = 2, **settings) -> UNet2DConditionModel:
    down, up = LEVELS[levels]
    return UNet2DConditionModel(
        in_channels=5, out_channels=4, block_out_channels=tuple(16 * (i + 1) for i in range(len(down))),
        down_block_types=down, up_block_types=up, layers_per_block=layers, norm_num_groups=8, attention_head_dim=2,
        cross_attention_dim=8, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(("layers", "side"), [(1, (16, 16)), (2, (13, 13)), (3, (24, 17))])
def test_the_layout_gives_what_a_forward_pass_gives(levels, layers, side):
    with torch.device("meta"):
        made = unet(levels, layers)
    wanted = taps._trace(made, *side)
    assert taps._by_layout(made, *side) == wanted
    points = [name for name in wanted if not name.startswith((taps.SKIP, taps.INTRA))]
    assert list(taps.trace(made, *side)) == points, "in the same order"


@pytest.mark.parametrize("settings", [{"downsample_padding": 0}, {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}])
def test_another_layout_is_traced(settings):
    with torch.device("meta"):
        made = unet("attention everywhere", **settings)
    assert taps._by_layout(made, 16, 16) == {}


def test_no_forward_pass_at_a_start(monkeypatch):
    monkeypatch.setattr(taps, "_traced", {})
    monkeypatch.setattr(taps, "_trace", lambda *_: pytest.fail("traced"))
    with torch.device("meta"):
        assert taps.trace(unet("stable diffusion"), 8, 8)["mid"] == (64, 1, 1)
