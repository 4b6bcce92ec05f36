"""Starts a model from a file of weights made elsewhere (init=FILE), in so far as names and shapes fit.

The file is a checkpoint, of this suite or of Stable Diffusion in the original layout or that of diffusers, or a LoRA.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import LazyTensor
from ragaf_exp.models.loading.merging import DOWN, Layer, layers_by_name, mark_changed, merge_into, read_layers
from ragaf_exp.models.loading.single_file import LAYOUTS, Layout, read_file
from ragaf_exp.models.loading.transfer import some, transfer
from ragaf_exp.models.loading.tuning import BASE, LORA
from ragaf_exp.models.model import Model
from ragaf_exp.models.stored import FLOAT32

OWN = Layout(("", "transformer.", "model.diffusion_model."), lambda names: {name: name for name in names})
ADAPTER = "default"  # the name of a model's own LoRA in peft
CLASS = "ControlNetModel"  # ends the names of their classes
# the names that only ControlNet files have
CONTROL = ("controlnet_cond_embedding.", "input_hint_block.", "control_model.", "controlnet_blocks.", "control_layers.")


def start_from_file(model: Model, path: Path, key: str) -> str:
    """Copy into a model what fits of a file.

    Args:
        model: The model of the first stage, changed in place.
        path: The file.
        key: Config key and value that name it, for messages.

    Returns:
        What was taken, in one line.

    Raises:
        UserError: The file is damaged, or nothing in it fits.
    """
    content = read_file(path, key)
    if any(DOWN.fullmatch(name) for name in content) and not any(name in content for name in model.state_dict()):
        return _start_lora(model, content, key)
    names = matched(model, content)
    state = _Renamed(content, names, {name: tuple(value.shape) for name, value in model.state_dict().items()})
    result = transfer(model, state)
    if not result.whole and not result.part:
        raise UserError(f"{key}: none of its {len(content)} tensors fits this model; use a file of the same architecture")
    result.unused = sorted(content.keys() - {names[name] for name in (*result.whole, *result.part)})
    return str(result)


def matched(model: Model, content: Collection[str]) -> dict[str, str]:
    """Assign names in a file to names in a model, each at most once: the parts that the file covers best come first.

    Args:
        model: The model.
        content: The names in the file.

    Returns:
        Name in the model -> name in the file.
    """
    has_control = any(name.startswith(CONTROL) for name in content)
    candidates = [pairs for prefix, kind, part in _parts(model) if not has_control or kind == "" or kind.endswith(CLASS)
                  for pairs in _candidates(prefix, part, content)]  # fmt: skip
    names: dict[str, str] = {}
    used: set[str] = set()
    for _, pairs in sorted(candidates, key=lambda candidate: -candidate[0]):
        free = {here: there for here, there in pairs.items() if here not in names and there not in used}
        names |= free
        used |= set(free.values())
    return names


def _parts(model: Model) -> Iterator[tuple[str, str, tuple[nn.Module, tuple[Layout, ...]]]]:
    """Yield prefix, class and layouts of the model's networks that other tools know, and of the model as a whole."""
    yield "", "", (model, (OWN,))
    for name, module in model.named_modules():
        if known := next((kind for kind in LAYOUTS if isinstance(module, kind)), None):
            yield f"{name}.", known.__name__, (module, LAYOUTS[known])
    for name in ("backbone", "hint"):  # a transformer or its ControlNet, in files by diffusers' names
        net = getattr(getattr(model, name, None), "net", None)
        if isinstance(net, nn.Module) and not isinstance(net, tuple(LAYOUTS)):
            yield f"{name}.net.", type(net).__name__, (net, (OWN,))


def _candidates(
    prefix: str, part: tuple[nn.Module, tuple[Layout, ...]], content: Collection[str]
) -> Iterator[tuple[float, dict[str, str]]]:
    """Yield for each layout the share of a part's names that the file has, and those names."""
    module, layouts = part
    plain = {name.replace(BASE, "."): name for name in module.state_dict() if LORA not in name}
    for layout in layouts:
        try:
            there = layout.names(plain.keys())
        except (KeyError, ValueError):  # a variant of the architecture that this layout does not have
            continue
        for start in layout.prefixes:
            named = {f"{prefix}{plain[name]}": f"{start}{there[name]}" for name in plain}
            pairs = {here: name for here, name in named.items() if name in content}
            if pairs:
                yield len(pairs) / len(plain), pairs


class _Renamed(Mapping[str, Tensor]):
    """A file's tensors under the model's names, each read when it is needed; the last one is held."""

    def __init__(self, content: Mapping[str, LazyTensor], names: dict[str, str], shapes: dict[str, tuple[int, ...]]):
        self.content, self.names, self.shapes = content, names, shapes
        self.last: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        if self.last is None or self.last[0] != name:
            tensor, shape = self.content[self.names[name]], self.shapes[name]
            tensor = tensor.reshaped(*shape) if tensor.shape == (*shape, 1, 1) else tensor  # a 1x1 convolution
            self.last = (name, tensor.load())
        return self.last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _start_lora(model: Model, content: Mapping[str, LazyTensor], key: str) -> str:
    """Copy a LoRA file's layers into the model's own adapters of the same rank, and merge all others."""
    backbone = model.backbone
    modules = layers_by_name(backbone)
    layers, own, merged, left = read_layers(content, key), 0, set[int](), []
    for name, layer in layers.items():
        module: Any = modules.get(name)
        if module is None or not _fits(module, layer):
            left.append(name)
        elif _copied(module, layer):
            own += 1
        elif backbone.base != FLOAT32:
            raise UserError(f"{key}: memory.base={backbone.base} can't take its layers; use memory.tune=lora with its rank")
        else:
            merged.add(merge_into(getattr(module, "base_layer", module).weight, layer.change(1.0)))
    if not own and not merged:
        raise UserError(f"{key}: none of its {len(layers)} layers fits this backbone; use a LoRA made for it")
    mark_changed(backbone, merged)
    more = f"; not used: {some(sorted(left))}" if left else ""
    return f"{own + len(merged)} of {len(layers)} LoRA layers taken, {own} as adapters and {len(merged)} merged{more}"


def _fits(module: Any, layer: Layer) -> bool:
    assert layer.down is not None and layer.up is not None, "checked when read"
    weight = getattr(module, "base_layer", module).weight
    inputs = weight.shape[1:].numel()
    return layer.up.shape[0] == weight.shape[0] and torch.Size(layer.down.shape[1:]).numel() == inputs


def _copied(module: Any, layer: Layer) -> bool:
    """Copy a layer into an adapter of the same rank; False where there is none."""
    assert layer.down is not None and layer.up is not None, "checked when read"
    adapters = getattr(module, "lora_A", {})
    if ADAPTER not in adapters or adapters[ADAPTER].weight.shape[0] != layer.down.shape[0]:
        return False
    down, up = adapters[ADAPTER].weight, module.lora_B[ADAPTER].weight
    rank = layer.down.shape[0]
    scale = 1.0 if layer.alpha is None else float(layer.alpha.load()) / rank
    with torch.no_grad():
        down.copy_(layer.down.load().reshape(down.shape))
        up.copy_(layer.up.load().reshape(up.shape) * (scale / module.scaling[ADAPTER]))
    return True
