"""Whole images as ONNX: the fixed steps are the scheduler's own, and the loop in onnxruntime gives the sampler's latent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ragaf_exp.diffusion.flow import Flow
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.export.onnx_compare import sampled as sampled_by
from ragaf_exp.export.onnx_image import export_image, steps_of
from ragaf_exp.export.onnx_steps import GIVEN, Steps, Sums
from ragaf_exp.models.model import Prediction

SHAPE = (1, 2, 4, 4)
WEIGHT = torch.randn((2, 2), generator=torch.Generator().manual_seed(0)) / 2
CASES = [(process, scheduler, strength) for process in (Diffusion, Flow)
         for scheduler in sorted(process().schedulers) for strength in (None, 0.6)]  # fmt: skip


class Toy:
    """A network that is not linear: tanh of mixed channels, and of the condition times the timestep."""

    def denoise(self, x_t: Tensor, t: Tensor, c: Tensor) -> Prediction:
        mixed = torch.einsum("ij,bjhw->bihw", WEIGHT, x_t)
        return Prediction(torch.tanh(mixed + c * t[:, None, None, None] / 1000))


def latents() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    noise, start, c = (torch.randn(SHAPE, generator=generator) for _ in range(3))
    return noise, start, c


def sampled(sampler: Sampler, strength: float | None) -> Tensor:
    noise, start, c = latents()
    return sampled_by(sampler, Toy(), [c, c / 2, -c], noise, None if strength is None else start, strength or 1.0)  # type: ignore[arg-type]


def looped(steps: Sums) -> Tensor:
    """Sample by the steps alone."""
    noise, start, c = latents()
    held = [start, noise]
    for t, row in zip(steps.times, steps.inputs, strict=True):
        x = sum(weight * x for weight, x in zip(row, held, strict=False))
        value = Toy().denoise(x.float(), torch.tensor([float(t)]), c).value
        assert value is not None
        held.append(value)
    return sum(weight * x for weight, x in zip(steps.result, held, strict=True)).float()


def fixed(sampler: Sampler, strength: float | None) -> Steps:
    return steps_of(sampler, SHAPE[2:], strength is not None, strength or 1.0)


def close(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize(("process", "scheduler", "strength"), [c for c in CASES if c[:2] != (Diffusion, "euler")])
def test_the_sums_are_the_schedulers(process: Any, scheduler: str, strength: float | None) -> None:
    sampler = Sampler(process(), scheduler, 9)
    steps = fixed(sampler, strength)
    assert isinstance(steps, Sums) and steps.inputs.shape == (len(steps.times), GIVEN + len(steps.times))
    assert not np.triu(steps.inputs[:, GIVEN:]).any(), "no step depends on a later prediction"
    assert close(looped(steps), sampled(sampler, strength))


def toy_step(path: Any) -> None:
    """The toy network as a graph of one step, with its weight as an initializer."""
    from onnx import TensorProto, helper, numpy_helper, save

    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Conv", ["x_t", "weight"], ["mixed"]), node("Div", ["t", "thousand"], ["share"]),
        node("Reshape", ["share", "four"], ["scale"]), node("Mul", ["c", "scale"], ["given"]),
        node("Add", ["mixed", "given"], ["sum"]), node("Tanh", ["sum"], ["prediction"]),
    ]  # fmt: skip
    shapes = {"x_t": SHAPE, "t": [1], "c": SHAPE}
    inputs = [value(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = [numpy_helper.from_array(WEIGHT.numpy()[:, :, None, None], "weight"),
               numpy_helper.from_array(np.array([1000], np.float32), "thousand"),
               numpy_helper.from_array(np.array([1, 1, 1, 1]), "four")]  # fmt: skip
    graph = helper.make_graph(nodes, "toy", inputs, [value("prediction", TensorProto.FLOAT, SHAPE)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    save(model, path)


def by_onnxruntime(sampler: Sampler, strength: float | None, folder: Path, names: tuple[str, ...] = ("c",)) -> Tensor:
    """names: of the conditions of each pass."""
    runtime = pytest.importorskip("onnxruntime", reason='onnxruntime is not installed: pip install "ragaf_exp[onnx]"')
    toy_step(folder / "step.onnx")
    weights = [weight for weight, *_ in sampler.passes()]
    export_image(folder / "step.onnx", folder / "image.onnx", fixed(sampler, strength), SHAPE, weights)
    session = runtime.InferenceSession(str(folder / "image.onnx"), providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["start", "noise", *names]
    noise, start, c = (x.numpy() for x in latents())
    conditions = dict(zip(names, (c, c / 2, -c), strict=False))
    start = start * 0 if strength is None else start
    return torch.from_numpy(session.run(None, {"start": start, "noise": noise, **conditions})[0])


@pytest.mark.parametrize(("process", "scheduler", "strength"), CASES)
def test_onnxruntime_samples_the_same_latent(process: Any, scheduler: str, strength: float | None, tmp_path: Path) -> None:
    sampler = Sampler(process(), scheduler, 9)
    assert close(by_onnxruntime(sampler, strength, tmp_path), sampled(sampler, strength))


@pytest.mark.parametrize("strength", [None, 0.97])
@pytest.mark.parametrize("steps", [1, 2, 20])
@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_eulers_method_rounds_as_the_sampler(prediction: str, steps: int, strength: float | None, tmp_path: Path) -> None:
    """sigma begins at 20,291: sums in another order differ by up to 3e-3."""
    sampler = Sampler(Diffusion(prediction=prediction, zero_terminal_snr=False), "euler", steps)
    assert close(by_onnxruntime(sampler, strength, tmp_path), sampled(sampler, strength))


@pytest.mark.parametrize(("text", "sketch", "count"), [(3.0, 1.0, 2), (3.0, 2.0, 3), (2.0, 2.0, 2)])
def test_guidance_has_a_pass_for_each_of_its_conditions(text: float, sketch: float, count: int, tmp_path: Path) -> None:
    for scheduler in ("ddim", "euler"):
        sampler = Sampler(Diffusion(), scheduler, 9, guidance=text, sketch_guidance=sketch)
        expected = sampled(sampler, None)
        assert close(by_onnxruntime(sampler, None, tmp_path, ("c", "pass1_c", "pass2_c")[:count]), expected)
        assert float((expected - sampled(Sampler(Diffusion(), scheduler, 9), None)).abs().max()) > 0.01


def test_only_steep_steps_of_eulers_method_are_held_to_less() -> None:
    """The default process is precise at 20 steps and more."""
    tolerances = [fixed(Sampler(Diffusion(), "euler", steps), None).tolerance for steps in (2, 9, 20, 50)]
    assert tolerances == [1e-4, 1e-4, 1e-5, 1e-5]
    assert fixed(Sampler(Diffusion(), "ddim", 2), None).tolerance == 1e-5
    stable = Diffusion(schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction="eps",
                       zero_terminal_snr=False)  # fmt: skip
    assert fixed(Sampler(stable, "euler", 2), None).tolerance == 1e-5
