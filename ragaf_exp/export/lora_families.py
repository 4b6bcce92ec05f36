"""LoRA of pretrained transformers in the names of sd-scripts and musubi-tuner, which ComfyUI reads too.

Flux and SD3 have one linear layer for queries, keys and values in their own code, where diffusers has three. Its adapter
has the sum of their ranks: A stacks theirs, and B has theirs as blocks on its diagonal, which is exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

QKV, ADDED = ("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
PREFIX = "lora_unet_"


@dataclass(frozen=True)
class Blocks:
    """Blocks of a family: their name in diffusers, their own name, and their own layers' parts in diffusers."""

    diffusers: str
    own: str
    layers: Mapping[str, tuple[str, ...]]  # own layer -> layers in diffusers, in the order of its rows


FLUX = (
    Blocks("transformer_blocks", "double_blocks", {
        "img_attn.qkv": QKV, "img_attn.proj": ("attn.to_out.0",), "txt_attn.qkv": ADDED,
        "txt_attn.proj": ("attn.to_add_out",),
        "img_mlp.0": ("ff.net.0.proj",), "img_mlp.2": ("ff.net.2",), "txt_mlp.0": ("ff_context.net.0.proj",),
        "txt_mlp.2": ("ff_context.net.2",), "img_mod.lin": ("norm1.linear",), "txt_mod.lin": ("norm1_context.linear",),
    }),
    Blocks("single_transformer_blocks", "single_blocks", {
        "linear1": (*QKV, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",),
    }),
)  # fmt: skip
SD3 = (
    Blocks("transformer_blocks", "joint_blocks", {
        "x_block.attn.qkv": QKV, "x_block.attn.proj": ("attn.to_out.0",), "context_block.attn.qkv": ADDED,
        "context_block.attn.proj": ("attn.to_add_out",), "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
        "x_block.attn2.proj": ("attn2.to_out.0",), "x_block.mlp.fc1": ("ff.net.0.proj",), "x_block.mlp.fc2": ("ff.net.2",),
        "context_block.mlp.fc1": ("ff_context.net.0.proj",), "context_block.mlp.fc2": ("ff_context.net.2",),
    }),
)  # fmt: skip
FAMILIES: dict[str, tuple[Blocks, ...]] = {  # class in diffusers -> blocks; without any, names are those of diffusers
    "FluxTransformer2DModel": FLUX, "SD3Transformer2DModel": SD3, "QwenImageTransformer2DModel": (),
}  # fmt: skip


def in_sd_scripts(layers: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor] | None:
    """Rename adapters as sd-scripts does, with each one's alpha, which equals its rank: the scale is 1.

    Args:
        layers: MODULE.lora_A.weight (rank,in) and MODULE.lora_B.weight (out,rank), by diffusers' names.
        net: The transformer that they adapt, for the shapes of layers without an adapter.

    Returns:
        The tensors by name; None for a family, or a layer, that has no name there.
    """
    blocks = FAMILIES.get(type(net).__name__)
    if blocks is None:
        return None
    modules = {name.removesuffix(".lora_A.weight") for name in layers if name.endswith(".lora_A.weight")}
    named: dict[str, Tensor] = {}
    for own, parts in _grouped(modules, blocks).items():
        down, up = _joined(parts, layers, net)
        flat = PREFIX + own.replace(".", "_")
        named |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up,
                  f"{flat}.alpha": torch.tensor(float(len(down)))}  # fmt: skip
        modules -= set(parts)
    return None if modules else named


def _grouped(modules: set[str], blocks: tuple[Blocks, ...]) -> dict[str, tuple[str, ...]]:
    """Map the family's own layers that have an adapter to their parts in diffusers."""
    if not blocks:
        return {name: (name,) for name in sorted(modules)}
    groups = {}
    for kind in blocks:
        indices = {int(match[1]) for name in modules if (match := re.match(rf"{kind.diffusers}\.(\d+)\.", name))}
        for index in sorted(indices):
            for own, parts in kind.layers.items():
                full = tuple(f"{kind.diffusers}.{index}.{part}" for part in parts)
                if not modules.isdisjoint(full):
                    groups[f"{kind.own}.{index}.{own}"] = full
    return groups


def _joined(parts: tuple[str, ...], layers: Mapping[str, Tensor], net: nn.Module) -> tuple[Tensor, Tensor]:
    """Join the adapters of a layer's parts: A (sum of ranks,in), B (sum of rows, sum of ranks)."""
    given = [part for part in parts if f"{part}.lora_A.weight" in layers]
    down = torch.cat([layers[f"{part}.lora_A.weight"] for part in given])
    rows = []
    for part in parts:
        before = sum(len(layers[f"{one}.lora_A.weight"]) for one in given if parts.index(one) < parts.index(part))
        rows.append(_rows(part, before, down, layers, net))
    return down.contiguous(), torch.cat(rows).contiguous()


def _rows(part: str, before: int, down: Tensor, layers: Mapping[str, Tensor], net: nn.Module) -> Tensor:
    """The rows of B of one part: its own B after `before` columns of zeros; all zero where it has no adapter."""
    own = layers.get(f"{part}.lora_B.weight")
    if own is None:
        module = net.get_submodule(part)
        layer: Any = getattr(module, "base_layer", module)
        return down.new_zeros(len(layer.weight), len(down))
    rows = own.new_zeros(len(own), len(down))
    rows[:, before : before + own.shape[1]] = own
    return rows
