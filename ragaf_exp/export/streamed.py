"""Models whose large networks are read from their files layer by layer while they run, so that memory never holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import ModelMixin
from omegaconf import DictConfig
from torch import Tensor, nn

from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.resident import drop_pages, trim_heap
from ragaf_exp.core.tensor_files import LazyTensor, Tensors
from ragaf_exp.models.loading.empty import without_weights
from ragaf_exp.models.loading.hub import PRETRAINED
from ragaf_exp.models.loading.pretrained import pretrained_source, pretrained_tensors
from ragaf_exp.models.loading.sources import check_source, load_own
from ragaf_exp.models.model import Model
from ragaf_exp.models.stored import FLOAT32

NETWORKS = (  # config group, its network's name in the part, and the subfolder of its source
    ("backbone", "unet", "unet"), ("backbone", "net", "transformer"), ("text", "net", ""), ("hint", "net", ""),
)  # fmt: skip
Origins = Mapping[str, Mapping[str, str]]  # part -> recorded origin of the weights that are not the stage's own


@dataclass(frozen=True)
class Reading:
    """How the weights of some models are read.

    copied: copies of weights are taken instead of pages of files. That takes longer, and puts them at addresses of the
    same alignment whatever the file, on which the last bits of a product depend. held: the weights that models hold, by
    the part of a file that they are; these models share them.
    """

    copied: bool
    held: dict[Any, Tensor] = field(default_factory=dict)

    def hold(self, weight: LazyTensor, kind: torch.dtype) -> Tensor:
        """Return a weight that a model holds. kind: its type there."""
        key = (weight.load, weight.shape, kind)
        if key not in self.held:
            self.held[key] = weight.load().to(kind, copy=self.copied)
        return self.held[key]


def streamed_model(own: Tensors, reading: Reading, parts: Parts, stage: str, sources: Origins) -> Model:
    """Build the model of a stage on the CPU, for a few images.

    The networks of diffusers in it hold no weights: each layer gets its own before it runs and drops them after. Where a
    weight has no file, as in base weights that are stored in fewer bits, the whole model is loaded.

    Args:
        own: The stage's own weights, by their names in the model.
        reading: How weights are read.
        parts: The run's parts.
        stage: Its name.
        sources: Where the other weights come from.

    Raises:
        UserError: A source is missing or damaged, or differs from the one that the run was trained with.
    """
    with torch.random.fork_rng(devices=[]), without_weights():
        model = make_model(parts, stage)
    weights = None if model.backbone.base != FLOAT32 else _weights(model, own, parts.cfg, sources)
    if weights is None:
        return _whole(parts, stage, own, sources)
    large = {name: net for name, net in model.named_modules() if isinstance(net, ModelMixin)}
    streamed = {f"{name}.{inner}" for name, net in large.items() for inner, _ in net.named_parameters()}
    state = model.state_dict().items()
    small = {name: reading.hold(weights[name], value.dtype) for name, value in state if name not in streamed}
    model.load_state_dict(small, strict=False, assign=True)
    for name, net in large.items():
        _stream(net, f"{name}.", weights, reading.copied)
    return model.requires_grad_(False).eval()


def _whole(parts: Parts, stage: str, own: Tensors, sources: Origins) -> Model:
    with torch.random.fork_rng(devices=[]):
        model = make_model(parts, stage)
    recorded = {group: dict(source) for group, source in sources.items()}
    load_own(model, {name: tensor.load() for name, tensor in own.items()}, recorded)
    return model.requires_grad_(False).eval()


def _weights(model: Model, own: Tensors, cfg: DictConfig, sources: Origins) -> dict[str, LazyTensor] | None:
    """Map the names in a model's state dict to its own weights and those of its sources; None if any has no file."""
    weights: dict[str, LazyTensor] = {}
    for group, name, subfolder in NETWORKS:
        net = getattr(getattr(model, group), name, None)
        if isinstance(net, nn.Module) and cfg[group].get("source") and cfg[group].get("weights", PRETRAINED) == PRETRAINED:
            inner = cfg[group].get("subfolder", subfolder)
            check_source(group, pretrained_source(group, cfg[group], inner), sources.get(group))
            unchanged = pretrained_tensors(group, cfg[group], net, inner, mapped=True)
            plain = {key: key.replace(".base_layer.", ".") for key in net.state_dict()}
            weights |= {f"{group}.{name}.{key}": unchanged[given] for key, given in plain.items() if given in unchanged}
    weights |= own
    return weights if model.state_dict().keys() <= weights.keys() else None


def _stream(net: nn.Module, prefix: str, weights: Tensors, copied: bool) -> None:
    """Let each layer of a network read its weights while it runs. prefix: of the network's names in `weights`."""
    _release(net)
    for name, module in net.named_modules():
        inner = f"{prefix}{name}." if name else prefix
        own = {key: weights[f"{inner}{key}"] for key, _ in module.named_parameters(recurse=False)}
        if own:
            layer = _Layer(own, {key: value.dtype for key, value in module.named_parameters(recurse=False)}, copied)
            module.register_forward_pre_hook(layer.load)
            module.register_forward_hook(layer.drop, always_call=True)


def _release(net: nn.Module) -> None:
    """Give back weights that encoders have read, before a network's first pass, and after each what its layers freed."""

    def before_first(*_: Any) -> None:
        handle.remove()
        drop_pages()

    handle = net.register_forward_pre_hook(before_first)
    net.register_forward_hook(lambda *_: trim_heap())


@dataclass(frozen=True)
class _Layer:
    """The weights of one layer, by their names in it."""

    weights: Tensors
    types: Mapping[str, torch.dtype]
    copied: bool

    def load(self, module: nn.Module, _: Any) -> None:
        for name, weight in self.weights.items():
            value = weight.load().to(self.types[name], copy=self.copied)
            setattr(module, name, nn.Parameter(value, requires_grad=False))

    def drop(self, module: nn.Module, *_: Any) -> None:
        for name, weight in self.weights.items():
            empty = torch.empty(weight.shape, dtype=self.types[name], device="meta")
            setattr(module, name, nn.Parameter(empty, requires_grad=False))
