"""Injection points of a UNet, at which conditions are added to its features, traced from the UNet itself.

Regions and small hint encoders use `in`, `down.i`, `mid` and `up.i`. diffusers adds the residuals of a ControlNet at
`skip.i` and `skip.mid`, and the features of a T2I-Adapter at `intra.i`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.unets import unet_2d_blocks
from torch import Tensor, nn

from ragaf_exp.models.backbones.points import Shape, shape_of

SKIP, INTRA = "skip.", "intra."
SKIP_MID = "skip.mid"
LAYOUT = (unet_2d_blocks.DownBlock2D, unet_2d_blocks.CrossAttnDownBlock2D, unet_2d_blocks.UNetMidBlock2DCrossAttn,
          unet_2d_blocks.UpBlock2D, unet_2d_blocks.CrossAttnUpBlock2D)  # fmt: skip

_traced: dict[tuple[str, int, int], dict[str, Shape]] = {}  # a run builds the same network several times


def points(unet: UNet2DConditionModel) -> dict[str, nn.Module]:
    """Map injection points, in order of execution (in, down.0 ..., mid, up.0 ...), to the module whose output changes."""
    modules: dict[str, nn.Module] = {"in": unet.conv_in}
    modules |= {f"down.{i}": block for i, block in enumerate(unet.down_blocks)}
    if unet.mid_block is not None:
        modules["mid"] = unet.mid_block
    return modules | {f"up.{i}": block for i, block in enumerate(unet.up_blocks)}


def trace(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    """Trace the injection points of regions and small hint encoders.

    Args:
        unet: The UNet.
        height: Height of the latents.
        width: Width of the latents.

    Returns:
        Injection point -> (C,h,w).
    """
    return {p: s for p, s in _all(unet, height, width).items() if not p.startswith((SKIP, INTRA))}


def trace_skips(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    """Trace the points at which diffusers adds down_block_additional_residuals and mid_block_additional_residual.

    Args:
        unet: The UNet.
        height: Height of the latents.
        width: Width of the latents.

    Returns:
        Injection point -> (C,h,w).
    """
    return {p: s for p, s in _all(unet, height, width).items() if p.startswith(SKIP)}


def trace_intra(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    """Trace the points at which diffusers adds down_intrablock_additional_residuals.

    Args:
        unet: The UNet.
        height: Height of the latents.
        width: Width of the latents.

    Returns:
        Injection point -> (C,h,w).
    """
    return {p: s for p, s in _all(unet, height, width).items() if p.startswith(INTRA)}


def _all(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    key = (unet.to_json_string(), height, width)
    if key not in _traced:
        _traced[key] = _by_layout(unet, height, width) or _trace(unet, height, width)
    return dict(_traced[key])


def _by_layout(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    """Compute the result of `_trace` from the layout of Stable Diffusion's blocks; empty for a UNet of other blocks.

    A forward pass, even on the meta device, takes a good part of a second and would delay every start.
    """
    blocks = [*unet.down_blocks, *([unet.mid_block] if unet.mid_block else []), *unet.up_blocks]
    if not all(type(block) in LAYOUT for block in blocks) or unet.config.downsample_padding != 1:
        return {}
    shapes: dict[str, Shape] = {"in": (unet.conv_in.out_channels, height, width)}
    skips, size = [shapes["in"]], (height, width)
    for i, block in enumerate(unet.down_blocks):
        inner = [(resnet.out_channels, *size) for resnet in block.resnets]
        attended = inner[-1] if getattr(block, "attentions", None) else None
        if block.downsamplers:  # stride 2, padding 1, same channels
            size = (-(-size[0] // 2), -(-size[1] // 2))
            inner.append((inner[-1][0], *size))
        skips += inner
        shapes[f"{INTRA}{i}"] = attended or skips[-1]
        shapes[f"down.{i}"] = skips[-1]
    if unet.mid_block is not None:
        shapes["mid"] = (unet.mid_block.resnets[-1].out_channels, *size)
    left = list(skips)
    for i, block in enumerate(unet.up_blocks):
        del left[-len(block.resnets) :]
        size = left[-1][1:] if left else size  # diffusers scales a block's output to the next one's skip connections
        shapes[f"up.{i}"] = (block.resnets[-1].out_channels, *size)
    shapes |= {f"{SKIP}{i}": skip for i, skip in enumerate(skips)}
    return shapes | ({SKIP_MID: shapes["mid"]} if "mid" in shapes else {})


def _trace(unet: UNet2DConditionModel, height: int, width: int) -> dict[str, Shape]:
    """Record the shapes of a forward pass on the meta device."""
    with torch.device("meta"):
        ghost = UNet2DConditionModel.from_config(unet.config)
    shapes: dict[str, Shape] = {}
    skips: list[Tensor] = []

    def record(name: str, features: Tensor) -> Tensor:
        shapes[name] = shape_of(features)
        return features

    x = torch.empty(1, ghost.config.in_channels, height, width, device="meta")
    tokens = torch.empty(1, 1, ghost.config.cross_attention_dim, device="meta")
    handles = [block.register_forward_hook(lambda m, a, out: skips.extend(out[1])) for block in ghost.down_blocks]
    handles.append(ghost.conv_in.register_forward_hook(lambda m, a, out: skips.append(out)))
    with torch.no_grad(), tapped(ghost, record), adapted(ghost, record):
        ghost(x, torch.zeros(1, device="meta"), tokens)
    shapes |= {f"{SKIP}{i}": shape_of(skip) for i, skip in enumerate(skips)}
    return shapes | ({SKIP_MID: shapes["mid"]} if "mid" in shapes else {})


@contextmanager
def adapted(unet: UNet2DConditionModel, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Replace features by `change("intra.i", features)` at the points of a T2I-Adapter while this is open.

    These lie after the last attention layer of a down block. In a block without attention they lie after the block, and
    the last skip connection changes too if it is the same tensor, because diffusers adds in place.

    Open it before `tapped`: what a tap adds to a block's output must not reach the skip connection.
    """
    handles = []
    for i, block in enumerate(unet.down_blocks):
        attentions = getattr(block, "attentions", None)
        hook = _adapt_tuple if attentions else _adapt_block
        module = attentions[-1] if attentions else block
        handles.append(module.register_forward_hook(hook(f"{INTRA}{i}", change)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adapt_tuple(name: str, change: Callable[[str, Tensor], Tensor]) -> Callable:
    return lambda module, args, output: (change(name, output[0]), *output[1:])


def _adapt_block(name: str, change: Callable[[str, Tensor], Tensor]) -> Callable:
    def hook(module: nn.Module, args: tuple, output):
        features, skips = output
        changed = change(name, features)
        return changed, (*skips[:-1], changed if skips[-1] is features else skips[-1])

    return hook


@contextmanager
def tapped(unet: UNet2DConditionModel, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Replace the features (B,C,h,w) at every injection point by `change(point, features)` while this is open."""
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
