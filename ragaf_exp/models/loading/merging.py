"""Merges a LoRA file into the weights that a run starts from (memory.merge).

Reads the names of kohya's sd-scripts, of diffusers and of peft. A layer's weight W becomes W + scale alpha / rank B A
(Hu et al. 2021, arXiv 2106.09685, section 4.1).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import LazyTensor
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.loading.single_file import read_file
from ragaf_exp.models.stored import FLOAT32

log = logging.getLogger(__name__)
DOWN = re.compile(r"(.+?)(?:\.lora_down\.weight|[._]lora\.down\.weight|\.lora_A\.weight)")
UP = re.compile(r"(.+?)(?:\.lora_up\.weight|[._]lora\.up\.weight|\.lora_B\.weight)")
ALPHA = re.compile(r"(.+)\.alpha")
TEXT = ("lora_te_", "text_encoder.", "te_")  # adapters of the text encoder, which are not merged


@dataclass
class Layer:
    """The tensors of one adapted layer. Without alpha the scale is 1."""

    down: LazyTensor | None = None  # A, (rank,in,...)
    up: LazyTensor | None = None  # B, (out,rank,...)
    alpha: LazyTensor | None = None

    def change(self, scale: float) -> Tensor:
        """Compute scale alpha / rank B A, (out, in ...)."""
        assert self.down is not None and self.up is not None, "checked when read"
        a, b = self.down.load().float().flatten(1), self.up.load().float().flatten(1)
        alpha = len(a) if self.alpha is None else float(self.alpha.load())
        return scale * alpha / len(a) * (b @ a)


def merge_lora(backbone: Backbone, file: str, scale: float) -> None:
    """Merge a LoRA file into a backbone's weights, which then count as changed since they were loaded.

    Args:
        backbone: The backbone, changed in place.
        file: The file.
        scale: Strength of the adapters; 1 = as trained.

    Raises:
        UserError: The file is missing or damaged, or a layer of it does not fit the backbone.
    """
    path, key = Path(file).expanduser(), f"memory.merge={file}"
    if not path.is_file():
        raise UserError(f"{key}: no such file; give a LoRA file in safetensors")
    if backbone.base != FLOAT32:
        raise UserError(f"{key}: changes weights, and memory.base={backbone.base} stores them in fewer bits; set "
                        "memory.base=float32")  # fmt: skip
    modules = layers_by_name(backbone)
    layers = read_layers(read_file(path, key), key)
    if unknown := [name for name in layers if name not in modules]:
        raise UserError(f"{key}: its layer {unknown[0]} is not in this backbone; use a LoRA made for it")
    changed = set()
    for name, layer in layers.items():
        inner: Any = getattr(modules[name], "base_layer", modules[name])
        change = layer.change(scale)
        _check_shape(inner.weight, change, f"{key}: {name}")
        changed.add(merge_into(inner.weight, change))
    mark_changed(backbone, changed)
    log.info("%s: merged %d layers at scale %g", file, len(layers), scale)


def read_layers(content: Mapping[str, LazyTensor], key: str) -> dict[str, Layer]:
    """Group a file's tensors by layer, under flat names as `down_blocks_0_attentions_0_proj_in`.

    Args:
        content: Name in the file -> tensor.
        key: Config key and value that name the file, for messages.

    Raises:
        UserError: The file holds something else than LoRA of a denoiser, or a layer is incomplete.
    """
    layers: dict[str, Layer] = {}
    for name, tensor in content.items():
        if name.startswith(TEXT):
            continue
        for kind, pattern in (("down", DOWN), ("up", UP), ("alpha", ALPHA)):
            if match := pattern.fullmatch(name):
                setattr(layers.setdefault(flat(match[1]), Layer()), kind, tensor)
                break
        else:
            raise UserError(f"{key}: {name} is no LoRA weight; only LoRA of linear and convolution layers is merged")
    if incomplete := [name for name, layer in layers.items() if layer.down is None or layer.up is None]:
        raise UserError(f"{key}: its layer {incomplete[0]} lacks one of its two matrices; fetch the file again")
    if not layers:
        raise UserError(f"{key}: holds no LoRA of a denoiser")
    return layers


def flat(name: str) -> str:
    """Return a layer's name in a file, of any of the layouts, without prefixes and with underscores."""
    name = re.sub(r"^(lora_unet_|lora_transformer_|unet\.|transformer\.|diffusion_model\.)", "", name)
    name = name.replace(".processor.", ".")
    return re.sub(r"(_to_out)$", r"\1_0", name.replace(".", "_"))


def mark_changed(backbone: Backbone, merged: set[int]) -> None:
    """Record the weights, by their ids, that are no longer those of the backbone's source."""
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    backbone.changed = backbone.changed | {names[parameter] for parameter in merged}


def layers_by_name(backbone: Backbone) -> dict[str, nn.Module]:
    """Map flat names, as LoRA files have them, to the layers that have a weight of at least two axes."""
    network = getattr(backbone, "unet", getattr(backbone, "net", backbone))
    layers = (nn.Linear, nn.Conv2d)
    return {
        flat(name): module
        for name, module in network.named_modules()
        if isinstance(getattr(module, "base_layer", module), layers) and ".lora_" not in name
    }


def _check_shape(weight: nn.Parameter, change: Tensor, where: str) -> None:
    """UserError where a change has another shape than the weight."""
    if change.numel() != weight.numel() or len(change) != len(weight):
        raise UserError(f"{where}: has the shape {tuple(change.shape)}, and this backbone's layer has "
                        f"{tuple(weight.shape)}; use a LoRA made for it")  # fmt: skip


def merge_into(weight: nn.Parameter, change: Tensor) -> int:
    """Add a change to a weight of as many values; returns the weight's id. On the meta device nothing is added."""
    if not weight.is_meta:
        with torch.no_grad():
            weight.add_(change.reshape(weight.shape).to(weight))
    return id(weight)
