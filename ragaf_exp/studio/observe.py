"""Records what happens while an image is sampled: pictures of the steps, the regions' attention and fusion."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ragaf_exp.data.uploads import png
from ragaf_exp.diffusion.keeping import Step, Stopped
from ragaf_exp.inference.pipeline import to_uint8
from ragaf_exp.models.codecs.base import Codec
from ragaf_exp.models.conditioning import RegionState
from ragaf_exp.models.model import Model
from ragaf_exp.studio.events import Picture, Report

SHARE = 0.3  # of the time of sampling that decoding pictures of its steps may take


class Frame(NamedTuple):
    """The estimate of the image at one step."""

    stage: int
    t: int  # timestep
    content: bytes  # a PNG


@dataclass
class Steps:
    """Reports each step of sampling, with a picture while those are quick to decode, and stops between steps.

    Args:
        codec: Decodes the estimates of x_0.
        report: Adds an event to the job.
        stopped: Whether the job has been stopped.
        pictures: Whether to decode pictures.
    """

    codec: Codec
    report: Report
    stopped: Callable[[], bool]
    pictures: bool = True
    frames: list[Frame] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    decoding: float = 0.0  # seconds

    def __call__(self, stage: int, step: Step) -> None:
        """Report a step of a stage. Raises Stopped if the job has been stopped."""
        if self.stopped():
            raise Stopped
        picture = self._picture(stage, step) if self.pictures else None
        self.report("step", stage=stage, n=step.number, of=step.count, t=step.t, image=picture)

    def _picture(self, stage: int, step: Step) -> Picture | None:
        """Decode the estimate of x_0; None where decoding is slow, as with large autoencoders, except at the end."""
        now = time.perf_counter()
        if self.frames and self.decoding > SHARE * (now - self.began) and step.number < step.count:
            return None
        content = png(to_uint8(self.codec.decode(step.x0))[0])
        self.frames.append(Frame(stage, step.t, content))
        self.decoding += time.perf_counter() - now
        return Picture(content)


@dataclass
class RegionRecord:
    """The regions of one image while stage 2 samples it."""

    state: RegionState | None = None  # of the first condition, which has text and sketch
    times: list[float] = field(default_factory=list)  # in [0,1], 1 = noise
    fusion: list[np.ndarray] = field(default_factory=list)  # (N,2) at each of the times: weights of sketch and text


@contextmanager
def record_regions(model: Model) -> Iterator[RegionRecord]:
    """Record the regions of the first item that a model samples in the block; a model without regions records none."""
    record = RegionRecord()

    def encoded(module: nn.Module, args: tuple, state: RegionState) -> None:
        if record.state is None:
            record.state = state

    def fused(module: nn.Module, args: tuple[Tensor, ...], weights: Tensor) -> None:
        t = float(args[0][0])
        if not record.times or t != record.times[-1]:  # further conditions of guidance repeat a timestep
            mean = weights.mean(-1) if weights.ndim == 4 else weights  # (B,N,2)
            record.times.append(t)
            record.fusion.append(mean[0].float().cpu().numpy())

    handles = []
    if model.ragaf is not None:
        handles = [model.ragaf.register_forward_hook(encoded), model.ragaf.fusion.register_forward_hook(fused)]
    try:
        with torch.no_grad():
            yield record
    finally:
        for handle in handles:
            handle.remove()
