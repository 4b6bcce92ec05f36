"""Names of weights in the original layout of Stable Diffusion (CompVis/latent-diffusion) for the names in diffusers.

Each function takes all names of a network in diffusers and returns diffusers' name -> name in a single-file checkpoint,
without the network's prefix there. They hold for any number of levels and of blocks per level, and are one-to-one, so
that the same maps serve writing and reading.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
CONTROLNET = "control_model."
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}  # of the autoencoder
PROJECTIONS = ("q", "k", "v", "proj_out")  # 1x1 convolutions in the original, linear layers in diffusers
SAME = ("conv_in", "conv_out", "quant_conv", "post_quant_conv")

Block = tuple[int, str, int, str]  # level, kind, index, rest


def unet_names(names: Collection[str]) -> dict[str, str]:
    """Names of a UNet."""
    down, up = _per_level(names, "down_blocks"), _per_level(names, "up_blocks")
    with_attention = {match[1] for name in names if (match := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    fixed = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", **TIME}
    mapped = {}
    for name in names:
        if block := _block(name, "down_blocks"):
            mapped[name] = _input_block(block, down)
        elif block := _block(name, "up_blocks"):
            mapped[name] = _output_block(block, up, str(block[0]) in with_attention)
        else:
            mapped[name] = _middle(name) or _fixed(name, fixed)
    return mapped


def controlnet_names(names: Collection[str]) -> dict[str, str]:
    """Names of a ControlNet."""
    down = _per_level(names, "down_blocks")
    blocks = sum(bool(re.match(r"controlnet_cond_embedding\.blocks\.\d+\.weight", name)) for name in names)
    fixed = {
        "conv_in": "input_blocks.0.0", "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        "controlnet_cond_embedding.conv_out": f"input_hint_block.{2 * (blocks + 1)}",
        "controlnet_mid_block": "middle_block_out.0", **TIME,
    }  # fmt: skip
    mapped = {}
    for name in names:
        if block := _block(name, "down_blocks"):
            mapped[name] = _input_block(block, down)
        elif match := re.match(r"controlnet_cond_embedding\.blocks\.(\d+)\.(.*)", name):
            mapped[name] = f"input_hint_block.{2 * (int(match[1]) + 1)}.{match[2]}"
        elif match := re.match(r"controlnet_down_blocks\.(\d+)\.(.*)", name):
            mapped[name] = f"zero_convs.{match[1]}.0.{match[2]}"
        else:
            mapped[name] = _middle(name) or _fixed(name, fixed)
    return mapped


def autoencoder_names(names: Collection[str]) -> dict[str, str]:
    """Names of an AutoencoderKL; the weights of its attention have two further axes of length 1 in the original."""
    levels = 1 + max(int(match[1]) for name in names if (match := re.match(r"decoder\.up_blocks\.(\d+)\.", name)))
    return {name: _autoencoder_name(name, levels) for name in names}


def is_projection(name: str) -> bool:
    """Whether the autoencoder's weight of this original name is a 1x1 convolution that diffusers has as a linear layer."""
    return re.fullmatch(rf"(?:en|de)coder\.mid\.attn_1\.(?:{'|'.join(PROJECTIONS)})\.weight", name) is not None


def text_names(names: Iterable[str]) -> dict[str, str]:
    """Names of the text encoder of Stable Diffusion 1.x; transformers may leave out the module's name."""
    return {name: f"text_model.{name.removeprefix('text_model.')}" for name in names}


TIME = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}


def _per_level(names: Iterable[str], side: str) -> int:
    """Count the residual blocks per level."""
    return 1 + max(int(match[1]) for name in names if (match := re.match(rf"{side}\.\d+\.resnets\.(\d+)\.", name)))


def _block(name: str, side: str) -> Block | None:
    match = re.match(rf"{side}\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    return None if match is None else (int(match[1]), match[2], int(match[3]), match[4])


def _input_block(block: Block, count: int) -> str:
    level, kind, index, rest = block
    first = 1 + level * (count + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + count}.0.op.{rest.removeprefix('conv.')}"
    return f"input_blocks.{first + index}.{_inner(kind, rest)}"


def _output_block(block: Block, count: int, attention: bool) -> str:
    level, kind, index, rest = block
    if kind == "upsamplers":
        return f"output_blocks.{level * count + count - 1}.{2 if attention else 1}.{rest}"
    return f"output_blocks.{level * count + index}.{_inner(kind, rest)}"


def _inner(kind: str, rest: str) -> str:
    return f"1.{rest}" if kind == "attentions" else f"0.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    layer, _, last = rest.partition(".")
    return f"{RESNET[layer]}.{last}"


def _middle(name: str) -> str | None:
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if match is None:
        return None
    if match[1] == "attentions":
        return f"middle_block.1.{match[3]}"
    return f"middle_block.{2 * int(match[2])}.{_resnet(match[3])}"


def _fixed(name: str, layers: dict[str, str]) -> str:
    layer, _, last = name.rpartition(".")
    return f"{layers[layer]}.{last}"


def _autoencoder_name(name: str, levels: int) -> str:
    side, _, rest = name.partition(".")
    if side in SAME:
        return name
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.*)", rest):
        level = int(match[2]) if match[1] == "down" else levels - 1 - int(match[2])
        if match[3] == "resnets":
            return f"{side}.{match[1]}.{level}.block.{match[4]}.{match[5].replace('conv_shortcut', 'nin_shortcut')}"
        return f"{side}.{match[1]}.{level}.{match[1]}sample.{match[5]}"
    if match := re.match(r"mid_block\.resnets\.(\d+)\.(.*)", rest):
        return f"{side}.mid.block_{int(match[1]) + 1}.{match[2].replace('conv_shortcut', 'nin_shortcut')}"
    if match := re.match(r"mid_block\.attentions\.0\.(.*)\.(\w+)", rest):
        return f"{side}.mid.attn_1.{ATTENTION[match[1]]}.{match[2]}"
    return f"{side}.{rest.replace('conv_norm_out', 'norm_out')}"
