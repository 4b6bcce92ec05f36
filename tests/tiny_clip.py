"""A small open_clip model with random weights, in files as users have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

SEED = 2  # of the weights: one whose embeddings of pictures and captions are somewhat alike, so that scores are not 0
CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def network(config: dict[str, Any] = CONFIG, seed: int = SEED) -> nn.Module:
    """Skips where open_clip is not installed."""
    clip = pytest.importorskip("open_clip", reason="open_clip is not installed: pip install open-clip-torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return clip.CLIP(**config).eval()


def save(folder: Path, config: dict[str, Any] = CONFIG, seed: int = SEED) -> dict[str, str]:
    """Clip's arguments `config` and `pretrained`, of files in a folder."""
    from safetensors.torch import save_file

    save_file(network(config, seed).state_dict(), folder / "tiny.safetensors")
    (folder / "tiny.json").write_text(json.dumps(config))
    return {"config": str(folder / "tiny.json"), "pretrained": str(folder / "tiny.safetensors")}
