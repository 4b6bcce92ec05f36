"""Networks from single-file checkpoints: Stable Diffusion 1.x and 2.x in the original layout or that of diffusers.

The file's names and shapes are compared with those of the known architectures; nothing is guessed from its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, ControlNetModel, T2IAdapter, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import LazyTensor, Tensors, lazy, read_lazily, read_metadata
from ragaf_exp.core.tensors import read_tensors, state_of
from ragaf_exp.models.loading import ldm
from ragaf_exp.models.loading.empty import on_meta, without_weights

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
WIDTHS = (320, 640, 1280, 1280)
SD1 = {"block_out_channels": WIDTHS, "layers_per_block": 2, "attention_head_dim": 8, "cross_attention_dim": 768}
SD2 = {**SD1, "attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 4, "sample_size": 512,
    "scaling_factor": 0.18215,
}  # fmt: skip
TEXT = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip
KNOWN: dict[type, list[dict[str, Any]]] = {  # architectures; the first that fits a file is taken
    UNet2DConditionModel: [{**sd, "in_channels": channels} for sd in (SD1, SD2) for channels in (4, 9)],
    AutoencoderKL: [VAE],
    CLIPTextModel: [TEXT],
}


@dataclass(frozen=True)
class Layout:
    """The layout of a network in single-file checkpoints."""

    prefixes: tuple[str, ...]  # of its names there
    names: Callable[[Collection[str]], dict[str, str]]  # names in diffusers -> names there


def _same(names: Collection[str]) -> dict[str, str]:
    return {name: name for name in names}


LAYOUTS: dict[type, tuple[Layout, ...]] = {
    UNet2DConditionModel: (Layout((ldm.UNET, ""), ldm.unet_names), Layout(("", "unet."), _same)),
    AutoencoderKL: (Layout((ldm.VAE, ""), ldm.autoencoder_names), Layout(("", "vae."), _same)),
    CLIPTextModel: (Layout((ldm.TEXT, ""), ldm.text_names),),
    ControlNetModel: (Layout((ldm.CONTROLNET, ""), ldm.controlnet_names), Layout(("",), _same)),
    T2IAdapter: (Layout(("",), _same),),
}
PLAIN = (Layout(("",), _same),)  # of all other networks


def is_single_file(source: str) -> bool:
    """Whether a source is a file of weights instead of a folder or a hub id."""
    path = Path(source).expanduser() if source else None
    return path is not None and path.suffix in SUFFIXES and path.is_file()


def read_network(kind: Any, path: Path, key: str) -> nn.Module:
    """Build the network of a known architecture that fits a file, with the file's weights in float32.

    Args:
        kind: Its class in diffusers or transformers.
        path: The file.
        key: Config key and value that name it, for messages.

    Returns:
        The network; on the meta device without weights.

    Raises:
        UserError: The file is damaged or fits no known architecture.
    """
    content = read_file(path, key)
    for config in KNOWN[kind]:
        network = _empty(kind, config)
        tensors = select(kind, network, content)
        if tensors is not None:
            return network if on_meta() else filled(network, tensors)
    raise UserError(f"{key}: holds no {kind.__name__} of Stable Diffusion 1.x or 2.x; give a folder in diffusers' layout")


def load_into(network: nn.Module, path: Path, key: str) -> None:
    """Load a file's weights into a network of the same architecture.

    Args:
        network: The network.
        path: The file.
        key: Config key and value that name it, for messages.

    Raises:
        UserError: The file is damaged or does not fit.
    """
    kind = network_kind(network)
    tensors = select(kind, network, read_file(path, key))
    if tensors is None:
        raise UserError(f"{key}: its weights do not fit a {kind.__name__} of this backbone; use a file made for it")
    if not on_meta():
        filled(network, tensors)


def stated_prediction(path: Path) -> str:
    """Return the prediction type that a file's metadata states, in diffusers' words; epsilon where it states none."""
    stated = read_metadata(path).get("modelspec.prediction_type", "") if path.suffix == ".safetensors" else ""
    return "v_prediction" if stated.startswith("v") else "epsilon"


def network_kind(network: nn.Module) -> type:
    """The class of LAYOUTS that a network is of, or else its own."""
    return next((kind for kind in LAYOUTS if isinstance(network, kind)), type(network))


def select(kind: type, network: nn.Module, content: Tensors) -> dict[str, LazyTensor] | None:
    """Select a network's weights from the content of a file.

    Args:
        kind: Its class.
        network: The network, on any device, for its names and shapes.
        content: Name in the file -> tensor.

    Returns:
        Name in the network -> tensor of the network's shape; None if the file's names or shapes do not fit.
    """
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for layout in LAYOUTS.get(kind, PLAIN):
        names = layout.names(shapes.keys())
        for prefix in layout.prefixes:
            complete = all(f"{prefix}{names[name]}" in content for name in shapes)
            if complete and (fitted := _fitted(shapes, {n: content[f"{prefix}{names[n]}"] for n in shapes})) is not None:
                return fitted
    return None


def filled(network: nn.Module, tensors: Tensors) -> nn.Module:
    """Load tensors into a network, in float32."""
    network.load_state_dict({name: value.load().float() for name, value in tensors.items()}, assign=True)
    return network


def read_file(path: Path, key: str, mapped: bool = False) -> Mapping[str, LazyTensor]:
    """Read a file of weights, safetensors or PyTorch's own format without code.

    Args:
        path: The file.
        key: Config key and value that name it, for messages.
        mapped: As in `read_lazily`.

    Raises:
        UserError: The file is damaged.
    """
    if path.suffix == ".safetensors":
        return read_lazily(path, mapped)
    content = read_tensors(path, key)
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    return {name: lazy(value) for name, value in state_of(content, path, key, "checkpoint of one file").items()}


def _fitted(shapes: Mapping[str, tuple[int, ...]], tensors: Tensors) -> dict[str, LazyTensor] | None:
    """Return the tensors in the network's shapes; 1x1 convolutions also fit linear layers. None if any differs."""
    fitted = {}
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape == (*shape, 1, 1):
            tensor = tensor.reshaped(*shape)
        if tensor.shape != shape:
            return None
        fitted[name] = tensor
    return fitted


def _empty(kind: Any, config: dict[str, Any]) -> nn.Module:
    """Build a network whose parameters have no memory yet; buffers do."""
    with without_weights():
        if hasattr(kind, "from_config"):
            return kind.from_config(config)
        return kind(kind.config_class.from_dict(config))
