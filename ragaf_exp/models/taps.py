"""Injection points of a UNet: where conditions are added to its features, traced from the UNet itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width
OUT = "out"  # the injection point at full resolution, of a backbone that has a pixel head


_traced: dict[tuple[str, int, int], dict[str, Shape]] = {}  # a run builds the same network several times


def points(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """Injection points in order of execution: in, down.0 ..., mid, up.0 ... Each adds to its module's output."""
    found: dict[str, nn.Module] = {"in": unet.conv_in}
    found |= {f"down.{i}": block for i, block in enumerate(unet.down_blocks)}
    if unet.mid_block is not None:
        found["mid"] = unet.mid_block
    return found | {f"up.{i}": block for i, block in enumerate(unet.up_blocks)}


def trace(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    """Channels and resolution at every injection point for latents of height x width, on the meta device."""
    key = (unet.to_json_string(), height, width)
    if key not in _traced:
        _traced[key] = _trace(unet, height, width)
    return dict(_traced[key])


def _trace(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    ghost = copy.deepcopy(unet).to("meta")
    shapes: dict[str, Shape] = {}

    def record(name: str, features: Tensor) -> Tensor:
        shapes[name] = tuple(features.shape[1:])
        return features

    x = torch.empty(1, ghost.config.in_channels, height, width, device="meta")
    tokens = torch.empty(1, 1, ghost.config.cross_attention_dim, device="meta")
    with torch.no_grad(), tapped(ghost, record):
        ghost(x, torch.zeros(1, device="meta"), tokens)
    return shapes


@contextmanager
def tapped(unet: UNet2DConditionModel, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """While open, `change(point, features)` replaces the features (B,C,h,w) leaving every injection point."""
    handles = [module.register_forward_hook(_hook(name, change)) for name, module in points(unet).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, change: Callable[[str, Tensor], Tensor]) -> Callable:
    def hook(module: nn.Module, args: tuple, output):
        if isinstance(output, tuple):  # a down block also returns its skip connections
            return (change(name, output[0]), *output[1:])
        return change(name, output)

    return hook
