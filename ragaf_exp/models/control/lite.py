"""Sketch encoders (config group `hint`): a sketch to features added along the UNet's down path."""

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
    """A small encoder: space to depth, convolutions at each resolution, a 1x1 output per injection point.

    shapes: injection point -> (C,h,w), traced at the training images' size. downscale: image pixels per latent pixel
    (both wiring). width: channels of its features. zero_init: outputs start at zero, as a trained backbone needs; one
    that is trained from scratch learns the sketch sooner without.
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
        # of each resolution below the stem's: how many cells of the one above it has a cell
        self.strides = [(round(h / low), round(w / narrow)) for (h, w), (low, narrow) in pairwise(sizes)]
        self.level = {p: sizes.index(s[1:]) for p, s in self.shapes.items() if p != OUT}  # 0: the stem's resolution
        self.levels = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)) for _ in sizes[1:])
        self.out = nn.ModuleDict({p.replace(".", "_"): self._output(p, s[0]) for p, s in self.shapes.items()})
        if zero_init:
            zero_module(self.out)

    def widen(self, channels: int) -> None:
        """Take images (B,channels,H,W)."""
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
        """(B,1,H,W) in [0,1] -> resolution (h,w) -> features (B,width,h,w); at full resolution the sketch itself."""
        x = self.stem(F.pixel_unshuffle(2 * sketch, self.downscale))
        finest, *coarser = self.resolutions(x.shape[2], x.shape[3])
        found = {(sketch.shape[2], sketch.shape[3]): sketch, finest: x}
        for size, level in zip(coarser, self.levels, strict=True):
            x = level(F.adaptive_avg_pool2d(x, size))
            found[size] = x
        return found

    def resolutions(self, height: int, width: int) -> list[tuple[int, int]]:
        found = [(height, width)]
        for down, across in self.strides:
            found.append((-(-found[-1][0] // down), -(-found[-1][1] // across)))
        return found

    def forward(self, features: dict[tuple[int, int], Tensor], keep: Tensor) -> dict[str, Tensor]:
        """Features added at each injection point (B,C,h,w); keep (B,) bool: False drops the sketch (zero)."""
        kept, (height, width) = keep[:, None, None, None], next(iter(features))  # the first is the sketch's own
        sizes = self.resolutions(height // self.downscale, width // self.downscale)
        at = {p: (height, width) if p == OUT else sizes[self.level[p]] for p in self.shapes}
        return {p: self.out[p.replace(".", "_")](features[size]) * kept for p, size in at.items()}
