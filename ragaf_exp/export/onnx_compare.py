"""Compares an image sampled by onnxruntime with one of the run's own sampler, and measures both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.export.kinds import CheckFailed
from ragaf_exp.export.onnx_image import OnnxImage
from ragaf_exp.export.onnx_step import conditioning, noised
from ragaf_exp.export.onnx_steps import Steps
from ragaf_exp.models.model import Model

ROUNDS = 3  # timed images


@torch.no_grad()
def check_image(path: Path, model: Model, parts: Parts, steps: Steps, strength: float | None) -> str:
    """Compare a whole image with the run's own sampler, and measure both.

    Args:
        path: The graph.
        model: The model, on the CPU.
        parts: The run's parts.
        steps: The fixed steps.
        strength: Share of the steps that are run from a latent; None = sampling starts from noise.

    Returns:
        The difference, and the ratios of time and of processor time.

    Raises:
        CheckFailed: The latents differ by more than the tolerance.
    """
    onnx = OnnxImage(model, path)
    noise, _ = noised(parts)
    conditions = [conditioning(model, parts, 0, keep) for _, keep in parts.sampler.passes()]
    start = torch.zeros_like(noise) if strength is None else noise.flip(-1)
    ours = partial(sampled, parts.sampler, model, conditions, noise, None if strength is None else start, strength or 1.0)
    theirs = partial(onnx, conditions, noise, start)
    expected, latent = ours(), theirs()
    worst = float((expected - latent).abs().max())
    if not worst <= steps.tolerance * max(1.0, float(expected.abs().max())):
        raise CheckFailed(f"{path}: an image in onnxruntime differs by {worst:.1e}")
    (seconds, work), (onnx_seconds, onnx_work) = _timed(ours), _timed(theirs)
    return (f"an image in onnxruntime differs by {worst:.1e}; it takes {onnx_seconds:.2f} s there and {seconds:.2f} s in "
            f"PyTorch, {onnx_work / work:.2f} times the processor time")  # fmt: skip


def sampled(
    sampler: Sampler, model: Model, conditions: Sequence[Any], noise: Tensor, start: Tensor | None, strength: float
) -> Tensor:
    """Sample by the run's sampler, with conditions that are encoded already.

    Args:
        sampler: The sampler.
        model: The model.
        conditions: The conditioning of each pass of the sampler.
        noise: Standard normal, (1,C,h,w).
        start: The latent that sampling starts from; None = from noise.
        strength: Share of the steps that are run then.
    """
    return sampler.sample(_Encoded(model, conditions), cast(Batch, _NoBatch()), noise, start, strength)[0]


class _NoBatch:
    """Stands for a batch of one image whose conditions are encoded already."""

    image = torch.zeros(1)

    def __len__(self) -> int:
        return 1


class _Encoded:
    """Stands for a model in the sampler, with given conditions for each pass, in their order."""

    def __init__(self, model: Model, conditions: Sequence[Any]):
        self.conditions, self.denoise = iter(conditions), model.denoise

    def condition(self, batch: Any, keep: Any = None, /) -> Any:
        return next(self.conditions)

    def with_start(self, c: Any, start: Tensor | None) -> Any:
        return c


def _timed(call: Callable[[], Tensor]) -> tuple[float, float]:
    """Median time, and mean processor time of all threads, in seconds."""
    seconds, before = [], time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)), (time.process_time() - before) / ROUNDS
