"""Folders of pretrained editing transformers in diffusers' layout, of a few MB, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
)
from tiny_families import DYNAMIC, WIDTH, clip, clip_tokenizer, qwen_parts, t5, t5_tokenizer, vae
from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor


def save_flux_editing(kind: type, folder: Path, **channels: int) -> Path:
    """A folder of a pipeline of Flux. channels: of the transformer's tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = clip_tokenizer(folder / "made"), t5_tokenizer()
        transformer = FluxTransformer2DModel(
            num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=WIDTH,
            pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(2, 2, 4), **channels,
        )  # fmt: skip
        encoders = clip(len(first), False), first, t5(len(second)), second
        kind(FlowMatchEulerDiscreteScheduler(**DYNAMIC), vae(), *encoders, transformer).save_pretrained(folder)
    return folder


def save_flux_kontext(folder: Path) -> Path:
    return save_flux_editing(FluxKontextPipeline, folder, in_channels=16)


def save_flux_fill(folder: Path) -> Path:
    """x_t and the masked image with 4 channels, and 64 pixels of the hole, of 2x2 latent pixels each."""
    return save_flux_editing(FluxFillPipeline, folder, in_channels=4 * (4 + 4 + 64), out_channels=16)


def save_qwen_editing(kind: type, folder: Path, zero_cond_t: bool = False) -> Path:
    """A folder of a pipeline of Qwen-Image-Edit. zero_cond_t: the edited image's tokens have timestep 0, as in 2511."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        scheduler, codec, encoder, tokenizer, transformer = qwen_parts(zero_cond_t=zero_cond_t)
        images = Qwen2VLImageProcessor(min_pixels=28 * 28), Qwen2VLVideoProcessor()
        processor = Qwen2VLProcessor(images[0], tokenizer, images[1], chat_template=tokenizer.chat_template)
        kind(scheduler, codec, encoder, tokenizer, processor, transformer).save_pretrained(folder)
    return folder


def save_qwen_edit(folder: Path) -> Path:
    return save_qwen_editing(QwenImageEditPipeline, folder)


def save_qwen_edit_plus(folder: Path) -> Path:
    return save_qwen_editing(QwenImageEditPlusPipeline, folder, zero_cond_t=True)


EDITING: dict[str, Callable[[Path], Path]] = {  # option of group backbone -> its folder
    "flux_kontext": save_flux_kontext, "flux_fill": save_flux_fill, "qwen_image_edit": save_qwen_edit,
    "qwen_image_edit_plus": save_qwen_edit_plus,
}  # fmt: skip
