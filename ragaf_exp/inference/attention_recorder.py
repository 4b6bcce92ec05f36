"""What a model attends to while it samples: image-to-text attention at every timestep, and the image so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.diffusion.base import Process
from ragaf_exp.models.model import Model

LARGEST = 32  # side to which maps of larger latents are shrunk


@dataclass
class AttentionFrame:
    """One timestep of a batch."""

    t: int  # timestep, from the last (noise) to 0
    words: Tensor  # (B,T,h,w) float32: share of a pixel's attention that each token gets, mean over layers and heads
    x0: Tensor  # (B,C,h',w') what the model takes the image for


@dataclass
class AttentionRecorder:
    """The frames of everything that was sampled while it was open."""

    process: Process
    seen: list[AttentionFrame] = field(default_factory=list)
    layers: list[Tensor] = field(default_factory=list)  # of the call under way

    def frames(self) -> list[AttentionFrame]:
        """By timestep, chunks of a batch joined; a chunk that was broken off, as by a lack of memory, is left out."""
        chunks: list[list[AttentionFrame]] = []
        for frame in self.seen:
            if not chunks or frame.t > chunks[-1][-1].t:  # timesteps fall: a new chunk has begun
                chunks.append([])
            if not chunks[-1] or frame.t < chunks[-1][-1].t:  # guidance asks again with less; the first has all
                chunks[-1].append(frame)
        longest = max(map(len, chunks), default=0)
        whole = [chunk for chunk in chunks if len(chunk) == longest]
        steps = zip(*whole, strict=True)
        return [AttentionFrame(at[0].t, _cat([f.words for f in at]), torch.cat([f.x0 for f in at])) for at in steps]


@contextmanager
def record_attention(model: Model, process: Process) -> Iterator[AttentionRecorder]:
    """Record a model's image-to-text attention while it samples; a backbone that shows none gives no frames."""
    watch = AttentionRecorder(process)
    backbone = model.backbone

    def before(module: nn.Module, args: tuple) -> None:
        watch.layers.clear()

    def after(module: nn.Module, args: tuple, value: Tensor) -> None:
        if not watch.layers:  # a backbone without image-to-text attention of this kind shows nothing
            return
        device = next(process.buffers(), args[0]).device
        x_t, t = args[0].float().to(device), args[1].long().to(device)
        words = _joined(watch.layers, x_t.shape[2] / x_t.shape[3])
        watch.seen.append(AttentionFrame(int(t[0]), words, process.to_x0(value.float().to(device), x_t, t).cpu()))

    handles = [backbone.register_forward_pre_hook(before), backbone.register_forward_hook(after)]
    try:
        with backbone.watch_attention(watch.layers.append):
            yield watch
    finally:
        for handle in handles:
            handle.remove()


def _cat(words: list[Tensor]) -> Tensor:
    """Chunks (B,T,h,w) as one; their captions may differ in length."""
    longest = max(w.shape[1] for w in words)
    return torch.cat([F.pad(w, (0, 0, 0, 0, 0, longest - w.shape[1])) for w in words])


def _joined(layers: list[Tensor], aspect: float) -> Tensor:
    """Attention (B,h w,T) of layers with different resolutions, height over width `aspect` -> mean (B,T,h,w)."""
    maps = []
    for attention in layers:
        height = round((attention.shape[1] * aspect) ** 0.5)
        maps.append(attention.transpose(1, 2).unflatten(2, (height, -1)).float().cpu())
    sides = max((m.shape[2:] for m in maps), key=lambda side: side[0] * side[1])
    scale = min(1.0, LARGEST / max(sides))
    size = tuple(max(1, round(side * scale)) for side in sides)
    return torch.stack([F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]).mean(0)
