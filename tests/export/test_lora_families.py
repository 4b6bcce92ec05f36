"""LoRA of Flux, SD3 and Qwen-Image in the names of sd-scripts: key lists, and the same effect as diffusers' layers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, QwenImageTransformer2DModel, SD3Transformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from ragaf_exp.export.lora_families import in_sd_scripts

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
RANK = 2
SIZES: dict[str, dict[str, Any]] = {
    "flux": {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4,
             "joint_attention_dim": 8, "pooled_projection_dim": 8, "axes_dims_rope": (4, 4, 8)},
    "sd3": {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "sample_size": 8,
            "caption_projection_dim": 32, "joint_attention_dim": 8, "pooled_projection_dim": 8, "pos_embed_max_size": 8},
    "qwen_image": {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16,
                   "joint_attention_dim": 8, "axes_dims_rope": (4, 6, 6)},
}  # fmt: skip
CLASSES: dict[str, Any] = {
    "flux": FluxTransformer2DModel, "sd3": SD3Transformer2DModel, "qwen_image": QwenImageTransformer2DModel,
}  # fmt: skip


def adapted(family: str, names: tuple[str, ...] = ATTENTION) -> tuple[nn.Module, dict[str, Tensor]]:
    """A tiny transformer with random adapters of these layers, and the adapters by diffusers' names."""
    torch.manual_seed(0)
    net = CLASSES[family](**SIZES[family])
    targets = [name for name, _ in net.named_modules() if name.endswith(names)]
    net.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
    for name, parameter in net.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    return net, {name: value.detach() for name, value in get_peft_model_state_dict(net).items()}


def written(layers: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    named = in_sd_scripts(layers, net)
    assert named is not None
    return named


def change(named: dict[str, Tensor], layer: str) -> Tensor:
    """The change of a weight as sd-scripts computes it: alpha / rank B A."""
    down, up = named[f"{layer}.lora_down.weight"], named[f"{layer}.lora_up.weight"]
    return float(named[f"{layer}.alpha"]) / len(down) * up @ down


def changes(layers: dict[str, Tensor], *names: str) -> Tensor:
    """The changes of layers in diffusers, one below the other."""
    return torch.cat([layers[f"{name}.lora_B.weight"] @ layers[f"{name}.lora_A.weight"] for name in names])


def qkv(block: str, added: bool = False) -> list[str]:
    return [f"{block}.attn.{name}" for name in (ATTENTION[4:7] if added else ATTENTION[:3])]


EXPECTED = {
    "flux": {*(f"double_blocks_{i}_{side}_attn_{layer}" for i in range(2) for side in ("img", "txt")
               for layer in ("qkv", "proj")), *(f"single_blocks_{i}_linear1" for i in range(2))},
    "sd3": {*(f"joint_blocks_{i}_{side}_block_attn_{layer}" for i in range(2) for side in ("x", "context")
              for layer in ("qkv", "proj"))} - {"joint_blocks_1_context_block_attn_proj"},
    "qwen_image": {f"transformer_blocks_{i}_attn_{name.replace('.', '_')}" for i in range(2) for name in ATTENTION},
}  # fmt: skip


@pytest.mark.parametrize("family", EXPECTED)
def test_keys_are_those_that_comfyui_and_sd_scripts_read(family):
    """The last block of SD3 has no output for the text; each layer has both matrices and its alpha, equal to the rank."""
    net, layers = adapted(family)
    named = written(layers, net)
    ends = ("lora_down.weight", "lora_up.weight", "alpha")
    assert named.keys() == {f"lora_unet_{layer}.{end}" for layer in EXPECTED[family] for end in ends}
    for layer in EXPECTED[family]:
        assert float(named[f"lora_unet_{layer}.alpha"]) == len(named[f"lora_unet_{layer}.lora_down.weight"])


def test_joined_layers_of_flux_have_the_effect_of_their_parts():
    net, layers = adapted("flux")
    named, block, single = written(layers, net), "transformer_blocks.1", "single_transformer_blocks.0"
    same = torch.testing.assert_close
    same(change(named, "lora_unet_double_blocks_1_img_attn_qkv"), changes(layers, *qkv(block)))
    same(change(named, "lora_unet_double_blocks_1_txt_attn_qkv"), changes(layers, *qkv(block, added=True)))
    same(change(named, "lora_unet_double_blocks_1_img_attn_proj"), changes(layers, f"{block}.attn.to_out.0"))
    same(change(named, "lora_unet_double_blocks_1_txt_attn_proj"), changes(layers, f"{block}.attn.to_add_out"))
    fused = change(named, "lora_unet_single_blocks_0_linear1")
    same(fused[: 3 * 32], changes(layers, *qkv(single)))
    assert not fused[3 * 32 :].any() and len(fused) == 3 * 32 + 4 * 32, "the rows of the MLP, which has no adapter"


def test_joined_layers_of_sd3_have_the_effect_of_their_parts():
    net, layers = adapted("sd3")
    named, block = written(layers, net), "transformer_blocks.0"
    torch.testing.assert_close(change(named, "lora_unet_joint_blocks_0_x_block_attn_qkv"), changes(layers, *qkv(block)))
    text = change(named, "lora_unet_joint_blocks_0_context_block_attn_qkv")
    torch.testing.assert_close(text, changes(layers, *qkv(block, added=True)))


def test_a_part_without_an_adapter_changes_nothing():
    net, layers = adapted("flux", ("to_q", "to_v"))
    named = written(layers, net)
    fused = change(named, "lora_unet_double_blocks_0_img_attn_qkv")
    query, value = (changes(layers, f"transformer_blocks.0.attn.{name}") for name in ("to_q", "to_v"))
    torch.testing.assert_close(fused, torch.cat([query, torch.zeros(32, 32), value]))


def test_diffusers_reads_flux_in_these_names_with_the_same_bits():
    """Diffusers' own converter from sd-scripts takes the block diagonal apart again; it expects Flux's own width."""
    net, layers = adapted("flux")
    layers = {name: value for name, value in layers.items() if name.startswith("transformer_blocks")}
    read = FluxPipeline.lora_state_dict(written(layers, net))
    read = read[0] if isinstance(read, tuple) else read
    assert read.keys() == {f"transformer.{name}" for name in layers}
    assert all(torch.equal(read[f"transformer.{name}"], value) for name, value in layers.items())


@pytest.mark.parametrize(("family", "count"), [("flux", 19 * 4 + 38), ("sd3", 24 * 4 - 1), ("qwen_image", 60 * 8)])
def test_the_whole_families_have_as_many_layers_as_published(family, count):
    """Flux.1, SD3 medium and Qwen-Image by their default configs, without weights."""
    with torch.device("meta"):
        net = CLASSES[family](**({"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
                                 if family == "sd3" else {}))  # fmt: skip
        names = [name for name, module in net.named_modules() if name.endswith(ATTENTION) and isinstance(module, nn.Linear)]
        layers = {}
        for name in names:
            rows, columns = net.get_submodule(name).weight.shape
            layers[f"{name}.lora_A.weight"] = torch.empty(RANK, columns)
            layers[f"{name}.lora_B.weight"] = torch.empty(rows, RANK)
        named = written(layers, net)
    stems = {re.sub(r"\.(lora_(down|up)\.weight|alpha)$", "", name) for name in named}
    assert len(stems) == count


def test_layers_and_families_without_such_a_name_have_no_file():
    net, layers = adapted("flux")
    assert in_sd_scripts({**layers, "x_embedder.lora_A.weight": torch.ones(2, 4)}, net) is None
    assert in_sd_scripts(layers, nn.Linear(2, 2)) is None
