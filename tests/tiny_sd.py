"""A folder in Stable Diffusion's layout, small, with random weights; its tokenizer is CLIP's in files and behaviour."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel

from ragaf_exp.models.codecs.autoencoder import Taesd
from ragaf_exp.models.control.controlnet import ControlNetHint

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = """a red blue green yellow purple cyan pink orange lavender circle star square cross moon heart triangle ring
    diamond hexagon on with above below left right of striped dotted hollow white beige background""".split()
WIDTH = 32
SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


def merges_of(words: list[str]) -> list[tuple[str, str]]:
    """Merges that make each word one token, letter by letter."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges[parts[0], parts[1]] = None
            parts = [parts[0] + parts[1], *parts[2:]]
    return list(merges)


def real_merges(file: Path) -> list[tuple[str, str]]:
    """CLIP's own, of its bpe_simple_vocab_16e6.txt.gz."""
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    return [tuple(line.split()) for line in lines]


def save_tokenizer(folder: Path, merges: list[tuple[str, str]] | None = None) -> int:
    """vocab.json, merges.txt and their settings, as in Stable Diffusion's folders; returns the number of tokens."""
    folder.mkdir(parents=True)
    merges = merges_of(WORDS) if merges is None else merges
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]  # CLIP's order: printable bytes, then the others
    rest = [b for b in range(256) if b not in order]
    letters = [chr(b) for b in order] + [chr(256 + i) for i in range(len(rest))]
    assert sorted(letters) == sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{x}</w>" for x in letters), *("".join(pair) for pair in merges), START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)


def unet(width: int = WIDTH, inpaint: bool = False, channels: tuple[int, int] = (32, 64)) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, in_channels=9 if inpaint else 4, block_out_channels=channels, layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip


def save_sd(
    folder: Path, width: int = WIDTH, prediction: str = "epsilon", inpaint: bool = False,
    merges: list[tuple[str, str]] | None = None, seed: int = 0, variant: str | None = None,
    channels: tuple[int, int] = (32, 64), vae_channels: tuple[int, int, int, int] = (16, 16, 16, 16),
) -> Path:  # fmt: skip
    """unet, vae, text_encoder, tokenizer and scheduler. width: of the text, as 1024 makes Stable Diffusion 2.1's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vocabulary = save_tokenizer(folder / "tokenizer", merges)
        unet(width, inpaint, channels).save_pretrained(folder / "unet", variant=variant)
        vae = AutoencoderKL(
            block_out_channels=vae_channels, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=4,
            scaling_factor=0.5, shift_factor=0.1,
        )  # fmt: skip
        vae.save_pretrained(folder / "vae", variant=variant)
        text = CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=77, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
        )  # fmt: skip
        CLIPTextModel(text).save_pretrained(folder / "text_encoder", variant=variant)
    DDPMScheduler(prediction_type=prediction, **SCHEDULER).save_pretrained(folder / "scheduler")
    return folder


def save_taesd(folder: Path, seed: int = 0) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoencoderTiny().save_pretrained(folder)
    return folder


def controlnet(backbone: Any, *args: Any, **options: Any) -> ControlNetHint:
    """hint=controlnet for latents of 4 channels. args: side, downscale and perhaps the source."""
    side, downscale, *source = args
    return ControlNetHint(backbone, side, downscale, Taesd(weights="none"), *source, **options)
