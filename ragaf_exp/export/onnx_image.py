"""A whole image of a stage as one ONNX graph: the denoising step in a loop over the run's fixed steps.

Every scheduler here is linear in noise, start and predictions. So the network's input at each step, and the result, are
weighted sums of those, with weights that depend on the settings alone. `steps_of` reads them off the scheduler itself.
With guidance, the step has several passes, whose conditions are separate inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.core.files import write_json
from ragaf_exp.core.types import Batch
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.export.kinds import CheckFailed
from ragaf_exp.export.onnx_passes import another_pass
from ragaf_exp.export.onnx_step import TOLERANCE, conditioning, noised, tensors_of
from ragaf_exp.models.model import Model

GIVEN = 2  # start and noise come before the predictions
ROUNDS = 3  # timed images
# Euler's method starts at a noise of 4,096 on a VP process with zero SNR at the end, where the sampler's own float32 sums
# are less precise: 2.5e-5 was measured.
LOUD, LOUD_TOLERANCE = 100.0, 1e-4


@dataclass(frozen=True)
class Steps:
    """The fixed steps of a stage: K of them."""

    times: np.ndarray  # (K,) timesteps
    inputs: np.ndarray  # (K,2+K): weights of start, noise and each prediction in the network's input
    result: np.ndarray  # (2+K,): weights in the result
    noise: float  # standard deviation of the first latent

    def tolerance(self, expected: Tensor) -> float:
        """The largest difference from the sampler's latent that counts as equal."""
        precise = LOUD_TOLERANCE if self.noise > LOUD else TOLERANCE
        return precise * max(1.0, float(expected.abs().max()))


def steps_of(sampler: Sampler, side: tuple[int, int], from_start: bool, strength: float) -> Steps:
    """Read the weights off a scheduler, by sampling with unit vectors in place of latents and predictions.

    Args:
        sampler: The run's sampler.
        side: Height and width of the latent.
        from_start: Sampling starts from a latent, noised to `strength`.
        strength: Share of the steps that are run then, in (0,1].

    Returns:
        The steps.
    """
    scheduler = sampler.diffusion.at(*side).scheduler(sampler.scheduler)
    scheduler.set_timesteps(sampler.steps)
    count = GIVEN + len(scheduler.timesteps)
    unit = torch.eye(count, dtype=torch.float64)[:, :, None, None]  # one unit vector of (count,1,1) each
    timesteps, x = sampler.begin(scheduler, unit[1:2], unit[:1] if from_start else None, strength)
    times, inputs, out = [], [], None
    for number, t in enumerate(timesteps):
        times.append(float(t))
        inputs.append(scheduler.scale_model_input(x, t).flatten().double().numpy())
        out = scheduler.step(unit[GIVEN + number][None], t, x)
        x = out.prev_sample
    assert out is not None, "there is at least one step"
    noise = 1.0 if from_start and strength < 1 else float(scheduler.init_noise_sigma)
    used = GIVEN + len(times)
    result = out.get("pred_original_sample", x).flatten().double().numpy()
    return Steps(np.array(times), np.stack(inputs)[:, :used], result[:used], noise)


def export_image(step: Path, path: Path, steps: Steps, shape: tuple[int, ...], weights: Sequence[float] = (1.0,)) -> None:
    """Write the graph. Inputs: start and noise, of `shape`, and the conditions of each pass; output: the latent.

    The conditions of the first pass have the names of the step's graph, those of pass k the prefix passk_. Sums over
    latents are in float64: where the noise level is high, large terms cancel.

    Args:
        step: The graph of the denoising step, whose weights are used by all steps.
        path: The file.
        steps: The fixed steps.
        shape: (1,C,h,w) of the latent.
        weights: Of the predictions of the passes, as `Sampler.passes` gives them.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(step)
    passes = [model.graph, *(another_pass(model.graph, f"pass{number}_") for number in range(1, len(weights)))]
    conditions = [given for one in passes for given in one.input[2:]]
    body, node = _body(passes, len(steps.times), shape), helper.make_node
    nodes = [
        node("Concat", ["start", "noise"], ["loop_given"], axis=0),
        node("Cast", ["loop_given"], ["loop_exact"], to=TensorProto.DOUBLE),
        node("Concat", ["loop_exact", "loop_zeros"], ["loop_first"], axis=0),
        node("Loop", ["loop_count", "loop_true", "loop_first"], ["loop_last"], body=body),
        node("Mul", ["loop_result", "loop_last"], ["loop_weighted"]),
        node("ReduceSum", ["loop_weighted", "loop_zero"], ["loop_total"], keepdims=1),
        node("Cast", ["loop_total"], ["latent"], to=TensorProto.FLOAT),
    ]
    inputs, output = [_floats("start", shape), _floats("noise", shape), *conditions], [_floats("latent", shape)]
    constants = [*model.graph.initializer, *_constants(steps, shape, weights)]
    graph = helper.make_graph(nodes, "image", inputs, output, constants)
    whole = helper.make_model(graph, opset_imports=list(model.opset_import), functions=list(model.functions))
    whole.ir_version = model.ir_version
    onnx.save(whole, path)
    facts = {"times": steps.times.tolist(), "inputs": steps.inputs.tolist(), "result": steps.result.tolist()}
    write_json(path.with_suffix(".json"), facts)


def _body(passes: Sequence[Any], count: int, shape: tuple[int, ...]) -> Any:
    """The loop's body: from all latents so far, (2+K,C,h,w) float64, the step's input, its passes, their sum added.

    Args:
        passes: The graphs of the step's passes, which have the same input.
        count: K, the number of steps.
        shape: (1,C,h,w) of the latent.
    """
    from onnx import TensorProto, helper

    (x_t, t, *_), node = passes[0].input, helper.make_node
    nodes = [
        node("Gather", ["loop_weights", "loop_i"], ["loop_row"]),  # (2+K,1,1,1)
        node("Mul", ["loop_row", "loop_in"], ["loop_parts"]),
        node("ReduceSum", ["loop_parts", "loop_zero"], ["loop_x"], keepdims=1),
        node("Cast", ["loop_x"], [x_t.name], to=TensorProto.FLOAT),
        node("Gather", ["loop_times", "loop_i"], ["loop_time"]),
        node("Reshape", ["loop_time", "loop_one"], [t.name]),
        *(inner for one in passes for inner in one.node),
        *(node("Mul", [f"loop_weight{k}", one.output[0].name], [f"loop_part{k}"]) for k, one in enumerate(passes)),
        node("Sum", [f"loop_part{k}" for k in range(len(passes))], ["loop_guided"]),
        node("Cast", ["loop_guided"], ["loop_new"], to=TensorProto.DOUBLE),
        node("Add", ["loop_i", "loop_offset"], ["loop_at"]),
        node("Reshape", ["loop_at", "loop_place"], ["loop_index"]),
        node("ScatterND", ["loop_in", "loop_index", "loop_new"], ["loop_out"]),
        node("Identity", ["loop_go"], ["loop_next"]),
    ]
    stacked, value = (GIVEN + count, *shape[1:]), helper.make_tensor_value_info
    inputs = [value("loop_i", TensorProto.INT64, []), value("loop_go", TensorProto.BOOL, []),
              value("loop_in", TensorProto.DOUBLE, stacked)]  # fmt: skip
    outputs = [value("loop_next", TensorProto.BOOL, []), value("loop_out", TensorProto.DOUBLE, stacked)]
    return helper.make_graph(nodes, "step", inputs, outputs)


def _constants(steps: Steps, shape: tuple[int, ...], weights: Sequence[float]) -> list[Any]:
    """The loop's weights and indices."""
    from onnx import numpy_helper

    arrays = {
        "loop_weights": steps.inputs[:, :, None, None, None], "loop_result": steps.result[:, None, None, None],
        "loop_times": steps.times.astype(np.float32), "loop_zeros": np.zeros((len(steps.times), *shape[1:])),
        "loop_zero": np.array([0]), "loop_one": np.array([1]), "loop_place": np.array([1, 1]),
        "loop_offset": np.array(GIVEN), "loop_count": np.array(len(steps.times)), "loop_true": np.array(True),
        **{f"loop_weight{k}": np.array(weight, np.float32) for k, weight in enumerate(weights)},
    }  # fmt: skip
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def _floats(name: str, shape: tuple[int, ...]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


class OnnxImage:
    """Samples the latent of one image in onnxruntime; the conditions are encoded in PyTorch.

    Args:
        model: The stage's model, on the CPU.
        path: The graph.
    """

    def __init__(self, model: Model, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.model = model
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, conditions: Sequence[Any], noise: Tensor, start: Tensor) -> Tensor:
        """Sample.

        Args:
            conditions: The conditioning of each pass of `Sampler.passes`, as `Model.condition` and `Model.with_coarse`
                give it.
            noise: Standard normal, (1,C,h,w).
            start: The latent that sampling starts from, of that shape; zeros where it starts from noise.

        Returns:
            The latent, (1,C,h,w).
        """
        values = (start, noise, *(value for c in conditions for _, value in tensors_of(c)))
        names = [given.name for given in self.session.get_inputs()]
        inputs = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        return torch.from_numpy(self.session.run(None, inputs)[0])


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
    conditions = [conditioning(model, parts, 0, text, sketch) for _, text, sketch in parts.sampler.passes()]
    start = torch.zeros_like(noise) if strength is None else noise.flip(-1)
    ours = partial(sampled, parts.sampler, model, conditions, noise, None if strength is None else start, strength or 1.0)
    theirs = partial(onnx, conditions, noise, start)
    expected, latent = ours(), theirs()
    worst = float((expected - latent).abs().max())
    if not worst <= steps.tolerance(expected):
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

    def with_coarse(self, c: Any, coarse: Tensor | None) -> Any:
        return c


def _timed(call: Callable[[], Tensor]) -> tuple[float, float]:
    """Median time, and mean processor time of all threads, in seconds."""
    seconds, before = [], time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)), (time.process_time() - before) / ROUNDS
