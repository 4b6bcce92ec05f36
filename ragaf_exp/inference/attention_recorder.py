"""Records image-to-text attention and the prediction of x_0 at every timestep of sampling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.diffusion.base import Process
from ragaf_exp.models.model import Model

LARGEST = 32  # px, the largest side of a map; larger ones are downsampled


@dataclass
class AttentionFrame:
    """The attention of a batch at one timestep."""

    t: int  # from the last timestep (noise) to 0
    attention: Tensor  # (B,T,h,w) float32: attention of each pixel to each token, mean over layers and heads
    x0: Tensor  # (B,C,h',w') prediction of x_0


@dataclass
class AttentionRecorder:
    """Collects the frames of all sampling in the block of `record_attention`."""

    process: Process
    recorded: list[AttentionFrame] = field(default_factory=list)
    layers: list[Tensor] = field(default_factory=list)  # attention of the current call, by layer

    def frames(self) -> list[AttentionFrame]:
        """Frames by timestep, chunks of a batch joined; chunks that ran out of memory, hence incomplete, are dropped."""
        chunks: list[list[AttentionFrame]] = []
        for frame in self.recorded:
            if not chunks or frame.t > chunks[-1][-1].t:  # timesteps decrease: a new chunk begins
                chunks.append([])
            if not chunks[-1] or frame.t < chunks[-1][-1].t:  # guidance repeats a timestep; keep the first
                chunks[-1].append(frame)
        longest = max(map(len, chunks), default=0)
        complete = [chunk for chunk in chunks if len(chunk) == longest]
        steps = zip(*complete, strict=True)
        return [AttentionFrame(s[0].t, _cat([f.attention for f in s]), torch.cat([f.x0 for f in s])) for s in steps]


@contextmanager
def record_attention(model: Model, process: Process) -> Iterator[AttentionRecorder]:
    """Record the attention of a model's backbone in the block; a backbone that exposes none records nothing."""
    recorder = AttentionRecorder(process)
    backbone = model.backbone

    def before(module: nn.Module, args: tuple) -> None:
        recorder.layers.clear()

    def after(module: nn.Module, args: tuple, value: Tensor) -> None:
        if not recorder.layers:  # this backbone has no BiasedAttention
            return
        device = next(process.buffers(), args[0]).device
        x_t, t = args[0][:, : value.shape[1]].float().to(device), args[1].long().to(device)
        attention = _joined(recorder.layers, x_t.shape[2] / x_t.shape[3])
        x_0 = process.to_x0(value.float().to(device), x_t, t).cpu()
        recorder.recorded.append(AttentionFrame(int(t[0]), attention, x_0))

    handles = [backbone.register_forward_pre_hook(before), backbone.register_forward_hook(after)]
    try:
        with backbone.watch_attention(recorder.layers.append):
            yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _cat(chunks: list[Tensor]) -> Tensor:
    """Concatenate chunks (B,T,h,w) whose captions may differ in length."""
    longest = max(chunk.shape[1] for chunk in chunks)
    return torch.cat([F.pad(chunk, (0, 0, 0, 0, 0, longest - chunk.shape[1])) for chunk in chunks])


def _joined(layers: list[Tensor], aspect: float) -> Tensor:
    """Mean (B,T,h,w) of attention (B,h w,T) of layers with different resolutions. aspect: height over width."""
    maps = []
    for attention in layers:
        height = round((attention.shape[1] * aspect) ** 0.5)
        maps.append(attention.transpose(1, 2).unflatten(2, (height, -1)).float().cpu())
    sides = max((m.shape[2:] for m in maps), key=lambda side: side[0] * side[1])
    scale = min(1.0, LARGEST / max(sides))
    size = tuple(max(1, round(side * scale)) for side in sides)
    return torch.stack([F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]).mean(0)
