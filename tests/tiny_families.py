"""Folders of pretrained transformers in diffusers' layout, of a few MB, with random weights; made by diffusers' classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tiny_sd import WORDS, save_tokenizer
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

WIDTH = 32  # of text tokens
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}


def vae(scaling: float = 0.36, shift: float | None = 0.12) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=4,
        scaling_factor=scaling, shift_factor=shift, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def clip(tokens: int, projection: bool) -> Any:
    config = CLIPTextConfig(
        vocab_size=tokens, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=tokens - 2, eos_token_id=tokens - 1, projection_dim=12,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    save_tokenizer(folder)
    return CLIPTokenizer.from_pretrained(folder)


def t5_tokenizer() -> T5Tokenizer:
    letters = [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz,.0123456789"]
    words = [(f"▁{word}", -2.0) for word in WORDS]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), *words, *letters], extra_ids=0)


def t5(tokens: int) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=tokens, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=4))


def save_flux(folder: Path, guidance: bool = True, seed: int = 0) -> Path:
    """A Flux folder; guidance: distilled, as dev."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = clip_tokenizer(folder / "made"), t5_tokenizer()
        transformer = FluxTransformer2DModel(
            in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=WIDTH, pooled_projection_dim=16, guidance_embeds=guidance, axes_dims_rope=(2, 2, 4),
        )  # fmt: skip
        scheduler = FlowMatchEulerDiscreteScheduler(**(DYNAMIC if guidance else {"shift": 1.0}))
        encoders = clip(len(first), False), first, t5(len(second)), second
        FluxPipeline(scheduler, vae(), *encoders, transformer).save_pretrained(folder)
    return folder


def save_sd3(folder: Path, with_t5: bool = True, seed: int = 0, medium35: bool = True) -> Path:
    """A folder of Stable Diffusion 3. with_t5: with the optional encoder; medium35: with 3.5 medium's further layers."""
    further = {"dual_attention_layers": (0,), "qk_norm": "rms_norm"} if medium35 else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = clip_tokenizer(folder / "made"), clip_tokenizer(folder / "made2")
        third = t5_tokenizer()
        transformer = SD3Transformer2DModel(
            sample_size=8, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=WIDTH, caption_projection_dim=32, pooled_projection_dim=24, pos_embed_max_size=12,
            **further,
        )  # fmt: skip
        StableDiffusion3Pipeline(
            transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), vae(1.5, 0.06), clip(len(first), True), first,
            clip(len(second), True), second, t5(len(third)) if with_t5 else None, third if with_t5 else None,
        ).save_pretrained(folder)  # fmt: skip
    return folder


CHAT = ("{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")  # fmt: skip


VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
MARKS = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Bytes, and one token for each word of WORDS with a space in front."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        for start in ("\u0120", ""):  # with the byte of the space, and at the start of a text
            parts = [*start, *word]
            while len(parts) > 1:
                merges[parts[0], parts[1]] = None
                parts = [parts[0] + parts[1], *parts[2:]]
    tokens = list(dict.fromkeys([*letters, *("".join(pair) for pair in merges), "<|endoftext|>"]))
    tokenizer = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=list(merges))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *VISION]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_parts(**transformer: Any) -> tuple[Any, ...]:
    """Scheduler, autoencoder, text encoder, tokenizer and transformer of Qwen-Image."""
    tokenizer = qwen_tokenizer()
    marks = dict(zip(MARKS, tokenizer.convert_tokens_to_ids(VISION), strict=True))
    text = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH,
              "fullatt_block_indexes": [0]}  # fmt: skip
    encoder = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks))
    network = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=WIDTH, axes_dims_rope=(2, 2, 4), **transformer,
    )  # fmt: skip
    codec = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.1, 0.6],
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(**DYNAMIC | {"max_shift": 0.9, "shift_terminal": 0.02})
    return scheduler, codec, encoder, tokenizer, network


def save_qwen_image(folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        QwenImagePipeline(*qwen_parts()).save_pretrained(folder)
    return folder


def qwen3(tokens: int, layers: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=tokens, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=layers, head_dim=8,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip


def save_flux2(folder: Path, guidance: bool = False, seed: int = 0) -> Path:
    """A folder of Flux.2 klein; guidance: with the guidance embedding of Flux.2 dev."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = qwen_tokenizer()
        encoder = Qwen3ForCausalLM(qwen3(len(tokenizer), 28))  # the pipeline reads layers 9, 18 and 27
        codec = AutoencoderKLFlux2(
            block_out_channels=(16, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=1, norm_num_groups=4,
        )  # fmt: skip
        codec.bn.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
        codec.bn.running_var.copy_(torch.tensor([1.5, 0.8, 1.1, 0.6]))
        transformer = Flux2Transformer2DModel(
            in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=3 * WIDTH, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=guidance,
        )  # fmt: skip
        scheduler = FlowMatchEulerDiscreteScheduler(**DYNAMIC)
        Flux2KleinPipeline(scheduler, codec, encoder, tokenizer, transformer).save_pretrained(folder)
    return folder


def save_z_image(folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = qwen_tokenizer()
        encoder = Qwen3Model(qwen3(len(tokenizer), 3))
        transformer = ZImageTransformer2DModel(
            in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=4, n_kv_heads=4, cap_feat_dim=WIDTH,
            axes_dims=[2, 2, 4], axes_lens=[512, 64, 64],
        )  # fmt: skip
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
        ZImagePipeline(scheduler, vae(), encoder, tokenizer, transformer).save_pretrained(folder)
    return folder


SAVED: dict[str, Callable[[Path], Path]] = {  # option of group backbone -> its folder
    "flux": save_flux, "sd3": save_sd3, "qwen_image": save_qwen_image, "z_image": save_z_image,
    "flux2": save_flux2,
}  # fmt: skip
