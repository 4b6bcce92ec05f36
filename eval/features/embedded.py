"""The small network behind fd_embedded, which ships with the package and needs no download.

It was trained on the embedded scenes (eval/features/train_embedded.py) to predict what they show and how they were
damaged. Its distance is for regression checks; it can only be compared with other fd_embedded figures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eval.features.base import Network, resized, state_checksum

WEIGHTS = Path(__file__).with_name("embedded.safetensors")
SIDE = 64
WIDTHS = (16, 32, 64, 96)
POOLED = WIDTHS[1:]  # widths of the stages whose averages are the features


class Trunk(nn.Module):
    """Four strided convolutions; (B,3,64,64) in [-1,1] -> (B, 192), spatial averages of the last three."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in zip(inputs, WIDTHS, strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for stage in self.stages:
            x = stage(x)
            pooled.append(x.mean((2, 3)))
        return torch.cat(pooled[1:], 1)


class Embedded(Network):
    """The trunk's 192 features of pictures at 64x64."""

    name, dim, batch = "embedded", sum(POOLED), 256
    resize = f"bicubic {SIDE}"

    def __init__(self, device: str = "auto", weights: Path = WEIGHTS) -> None:
        super().__init__(device)
        state = load_file(weights)
        self.checksum = state_checksum(state)
        with torch.random.fork_rng(devices=[]):
            model = Trunk()
        model.load_state_dict({key: value.float() for key, value in state.items()})
        self.model = model.eval().requires_grad_(False).to(self.device)

    def prepare(self, picture: np.ndarray) -> Tensor:
        return torch.from_numpy(resized(picture, SIDE) / 127.5 - 1).permute(2, 0, 1).contiguous()

    def embed(self, batch: Tensor) -> Tensor:
        return self.model(batch)
