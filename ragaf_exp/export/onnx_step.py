"""One denoising step of a stage as an ONNX graph, for any number of regions and tokens.

A step gets all conditions encoded, as they do not depend on the timestep. `OnnxDenoiser` runs a graph in place of the
network, so that whole images are sampled by onnxruntime.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.files import write_json
from ragaf_exp.data.loader import collate
from ragaf_exp.export.kinds import CheckFailed
from ragaf_exp.export.same_image import drawing_of_boxes, pictures_for
from ragaf_exp.inference.examples import as_example
from ragaf_exp.models.model import Model, Prediction

TOLERANCE = 1e-5  # of float32 predictions, absolute or relative to the largest
OPSET = 18
ROUNDS = 5  # timed steps
CAPTIONS = ("a red circle and a blue star", "a red circle")


def export_step(model: Model, parts: Parts, path: Path) -> None:
    """Export a step of a model. NAME.json next to the file lists the inputs' places in the conditioning.

    Args:
        model: The model, on the CPU.
        parts: The run's parts.
        path: The file.
    """
    one, other = (conditioning(model, parts, i) for i in range(2))
    names, values = zip(*tensors_of(one), strict=True)
    shapes = [value.shape for _, value in tensors_of(other)]
    auto = torch.export.Dim.AUTO
    dynamic = tuple({d: auto for d in range(v.ndim) if v.shape[d] != s[d]} for v, s in zip(values, shapes, strict=True))
    with torch.no_grad():
        program = torch.onnx.export(
            Step(model, one).eval(), (*noised(parts), *values), dynamo=True, verbose=False, opset_version=OPSET,
            dynamic_shapes={"x_t": {}, "t": {}, "conditions": dynamic},
        )  # fmt: skip
    assert program is not None, "dynamo exports return the program"
    program.save(path)
    write_json(path.with_suffix(".json"), {"inputs": ["x_t", "t", *names]})


class Step(nn.Module):
    """One pass of a denoiser as a function of tensors.

    Weights are held under numbered names: torch.fx writes code, in which an injection point named `in` is no identifier.

    Args:
        model: The model.
        template: A conditioning, whose tensors are replaced by the inputs.
    """

    def __init__(self, model: Model, template: Any):
        super().__init__()
        inner = _Denoise(model, template)
        self._inner = [inner]  # in a list: its weights must not be registered under their own names
        self._names: list[str] = []
        for name, value in (*inner.named_parameters(), *inner.named_buffers()):
            self.register_buffer(f"w{len(self._names)}", value.detach())
            self._names.append(name)

    def forward(self, x_t: Tensor, t: Tensor, *conditions: Tensor) -> Tensor:
        """Predict from noised latents.

        Args:
            x_t: Noised latents, (1,C,h,w).
            t: Timesteps, (1,).
            *conditions: The tensors of the conditioning, in the order of `tensors_of`.

        Returns:
            The prediction, (1,C,h,w).
        """
        weights = {name: getattr(self, f"w{i}") for i, name in enumerate(self._names)}
        return torch.func.functional_call(self._inner[0], weights, (x_t, t, conditions))


class _Denoise(nn.Module):
    def __init__(self, model: Model, template: Any):
        super().__init__()
        self.model, self.template = model, template

    def forward(self, x_t: Tensor, t: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        value = self.model.denoise(x_t, t, with_tensors(self.template, iter(conditions))).value
        assert value is not None, "a pass with latents predicts"
        return value


class OnnxDenoiser:
    """Stands for a model in the sampler: encoders run in PyTorch, the denoiser in onnxruntime, one image at a time.

    Args:
        model: The model, on the CPU.
        path: The graph.
    """

    def __init__(self, model: Model, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.model = model
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __getattr__(self, name: str) -> Any:
        """Everything but the denoiser is the model's."""
        return getattr(self.model, name)

    def denoise(self, x_t: Tensor, t: Tensor, c: Any) -> Prediction:
        """Predict from noised latents.

        Args:
            x_t: Noised latents, (1,C,h,w).
            t: Timesteps, (1,).
            c: The conditioning.
        """
        values = (x_t, t, *(value for _, value in tensors_of(c)))
        inputs = {i.name: v.numpy() for i, v in zip(self.session.get_inputs(), values, strict=True)}
        return Prediction(torch.from_numpy(self.session.run(None, inputs)[0]))


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dataclasses and dicts with their paths, in a fixed order."""
    if isinstance(value, Tensor):
        yield path, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors_of(inner, f"{path}.{key}")


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a copy of nested dataclasses and dicts with other tensors, in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: with_tensors(getattr(value, field.name), tensors) for field in fields(value)}
        return replace(value, **changes)
    return {key: with_tensors(inner, tensors) for key, inner in value.items()} if isinstance(value, dict) else value


@torch.no_grad()
def conditioning(model: Model, parts: Parts, index: int, keep: Mapping[str, bool] | None = None) -> Any:
    """Encode one of two drawings, which differ in the numbers of regions and tokens.

    Args:
        model: The model.
        parts: The run's parts.
        index: 0 or 1, the drawing.
        keep: False at the names of conditions that are dropped, as for guidance; None = all are given.
    """
    size = (parts.cfg.data.size,) * 2
    drawing = drawing_of_boxes(size[0], 2 - index)
    example = as_example(drawing, CAPTIONS[index], parts, size, pictures_for(parts, size[0]))
    start, _ = noised(parts)
    given = {name: torch.tensor([one]) for name, one in (keep or {}).items()}
    return model.with_start(model.condition(collate([example]), given), start)


def noised(parts: Parts) -> tuple[Tensor, Tensor]:
    """Return latents (1,C,h,w) and a timestep (1,), always the same."""
    side = parts.cfg.data.size // parts.codec.downscale
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn((1, parts.codec.channels, side, side), generator=generator)
    return x_t, torch.tensor([parts.diffusion.timesteps / 2])


@torch.no_grad()
def check_step(path: Path, model: Model, parts: Parts) -> str:
    """Compare a step with the model's, for two numbers of regions and tokens, and measure both.

    Args:
        path: The graph.
        model: The model, on the CPU.
        parts: The run's parts.

    Returns:
        The difference and the times.

    Raises:
        CheckFailed: The predictions differ by more than TOLERANCE.
    """
    denoiser = OnnxDenoiser(model, path)
    worst = 0.0
    for index in range(2):
        inputs = (*noised(parts), conditioning(model, parts, index))
        ours, theirs = (network.denoise(*inputs).value for network in (model, denoiser))
        assert ours is not None and theirs is not None, "a pass with latents predicts"
        worst = max(worst, float((ours - theirs).abs().max()) / max(1.0, float(ours.abs().max())))
    if not worst <= TOLERANCE:
        raise CheckFailed(f"{path}: onnxruntime differs by {worst:.1e}")
    torch_ms, onnx_ms = (_milliseconds(network, inputs) for network in (model, denoiser))
    return f"onnxruntime differs by {worst:.1e}; a step takes {onnx_ms:.1f} ms there and {torch_ms:.1f} ms in PyTorch"


def _milliseconds(network: Any, inputs: tuple[Any, ...]) -> float:
    """Median time of a step."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        network.denoise(*inputs)
        seconds.append(time.perf_counter() - began)
    return 1000 * float(np.median(seconds))
