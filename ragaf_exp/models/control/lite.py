"""A small sketch encoder (config group `hint`) whose features are added along the UNet's down path."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import at_least
from ragaf_exp.models.backbones.points import OUT, Shape
from ragaf_exp.models.control.base import Hint
from ragaf_exp.models.layers import zero_module


class LiteHint(Hint):
    """Space-to-depth, convolutions at each resolution and a 1x1 output convolution per injection point.

    Args:
        shapes: Injection point -> (C,h,w), traced at the training images' size (wiring).
        downscale: Image pixels per latent pixel (wiring).
        width: Channels of the features.
        zero_init: Outputs start at zero. Pretrained backbones need this; backbones trained from scratch learn to follow
            the sketch sooner without it.
    """

    def __init__(self, shapes: dict[str, Shape], downscale: int, width: limits.Width = 64, zero_init: bool = True):
        super().__init__()
        at_least("hint", 1, width=width)
        self.shapes = {p: s for p, s in shapes.items() if not p.startswith("up")}
        self.downscale = downscale
        self.width, self.zero_init = width, zero_init
        self.stem = nn.Sequential(
            nn.Conv2d(downscale * downscale, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        sizes = sorted({s[1:] for p, s in self.shapes.items() if p != OUT}, reverse=True)
        # stride of each resolution below the stem's relative to the one above it
        self.strides = [(round(h / low), round(w / narrow)) for (h, w), (low, narrow) in pairwise(sizes)]
        self.level = {p: sizes.index(s[1:]) for p, s in self.shapes.items() if p != OUT}  # 0 = the stem's resolution
        self.levels = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)) for _ in sizes[1:])
        self.out = nn.ModuleDict({p.replace(".", "_"): self._output(p, s[0]) for p, s in self.shapes.items()})
        if zero_init:
            zero_module(self.out)

    def widen(self, channels: int) -> None:
        """Accept images (B,channels,H,W) instead of sketches."""
        self.stem[0] = nn.Conv2d(channels * self.downscale**2, self.width, 3, padding=1)
        if OUT in self.shapes:
            self.out[OUT] = self._output(OUT, self.shapes[OUT][0], channels)
            if self.zero_init:
                zero_module(self.out[OUT])

    def _output(self, point: str, channels: int, image_channels: int = 1) -> nn.Conv2d:
        if point == OUT:
            return nn.Conv2d(image_channels, channels, 3, padding=1)
        return nn.Conv2d(self.width, channels, 1)

    def features(self, sketch: Tensor) -> dict[tuple[int, int], Tensor]:
        """Encode a sketch (B,1,H,W) in [0,1].

        Returns:
            Resolution (h,w) -> features (B,width,h,w); at full resolution, the sketch itself.
        """
        x = self.stem(F.pixel_unshuffle(2 * sketch, self.downscale))  # (B,width,h,w)
        finest, *coarser = self.resolutions(x.shape[2], x.shape[3])
        by_size = {(sketch.shape[2], sketch.shape[3]): sketch, finest: x}
        for size, level in zip(coarser, self.levels, strict=True):
            x = level(F.adaptive_avg_pool2d(x, size))
            by_size[size] = x
        return by_size

    def resolutions(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the resolutions (h,w) of the features, from fine to coarse, for latents of height x width."""
        sizes = [(height, width)]
        for down, across in self.strides:
            sizes.append((-(-sizes[-1][0] // down), -(-sizes[-1][1] // across)))
        return sizes

    def forward(self, features: dict[tuple[int, int], Tensor], keep: Tensor) -> dict[str, Tensor]:
        """Compute the residual (B,C,h,w) of each injection point. keep (B,) bool: False drops the sketch (zero)."""
        factor, (height, width) = keep[:, None, None, None], next(iter(features))  # the first size is the sketch's
        sizes = self.resolutions(height // self.downscale, width // self.downscale)
        at = {p: (height, width) if p == OUT else sizes[self.level[p]] for p in self.shapes}
        return {p: self.out[p.replace(".", "_")](features[size]) * factor for p, size in at.items()}
