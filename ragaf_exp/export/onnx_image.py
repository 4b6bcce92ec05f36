"""A whole image of a stage as one ONNX graph: the denoising step in a loop over the run's fixed steps.

With guidance, the step has several passes, whose conditions are separate inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from ragaf_exp.core.files import write_json
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.export.onnx_euler import euler_of
from ragaf_exp.export.onnx_passes import another_pass
from ragaf_exp.export.onnx_step import tensors_of
from ragaf_exp.export.onnx_steps import Steps, sums_of
from ragaf_exp.models.model import Model


def steps_of(sampler: Sampler, side: tuple[int, int], from_start: bool, strength: float) -> Steps:
    """Return the fixed steps of a sampler.

    Args:
        sampler: The run's sampler.
        side: Height and width of the latent.
        from_start: Sampling starts from a latent, noised to `strength`.
        strength: Share of the steps that are run then, in (0,1].
    """
    scheduler = sampler.diffusion.at(*side).scheduler(sampler.scheduler)
    scheduler.set_timesteps(sampler.steps)
    kind = euler_of if isinstance(scheduler, EulerDiscreteScheduler) else sums_of
    return kind(sampler, scheduler, from_start, strength)


def export_image(step: Path, path: Path, steps: Steps, shape: tuple[int, ...], weights: Sequence[float] = (1.0,)) -> None:
    """Write the graph. Inputs: start and noise, of `shape`, and the conditions of each pass; output: the latent.

    The conditions of the first pass have the names of the step's graph, those of pass k the prefix passk_.

    Args:
        step: The graph of the denoising step, whose weights are used by all steps.
        path: The file.
        steps: The fixed steps.
        shape: (1,C,h,w) of the latent.
        weights: Of the predictions of the passes, as `Sampler.passes` gives them.
    """
    import onnx
    from onnx import helper

    model = onnx.load(step)
    passes = [model.graph, *(another_pass(model.graph, f"pass{number}_") for number in range(1, len(weights)))]
    conditions = [given for one in passes for given in one.input[2:]]
    body, node = _body(passes, steps, shape), helper.make_node
    nodes = [
        *steps.begin(),
        node("Loop", ["loop_count", "loop_true", "loop_first"], ["loop_last"], body=body),
        *steps.end(),
    ]
    inputs, output = [_floats("start", shape), _floats("noise", shape), *conditions], [_floats("latent", shape)]
    constants = [*model.graph.initializer, *_constants(steps, shape, weights)]
    graph = helper.make_graph(nodes, "image", inputs, output, constants)
    whole = helper.make_model(graph, opset_imports=list(model.opset_import), functions=list(model.functions))
    whole.ir_version = model.ir_version
    onnx.save(whole, path)
    write_json(path.with_suffix(".json"), steps.facts)


def _body(passes: Sequence[Any], steps: Steps, shape: tuple[int, ...]) -> Any:
    """The loop's body: from the state, the step's input, its passes, the sum of their predictions, the next state.

    Args:
        passes: The graphs of the step's passes, which have the same input.
        steps: The fixed steps.
        shape: (1,C,h,w) of the latent.
    """
    from onnx import TensorProto, helper

    (x_t, t, *_), node = passes[0].input, helper.make_node
    nodes = [
        *steps.scaled(x_t.name),
        node("Gather", ["loop_times", "loop_i"], ["loop_time"]),
        node("Reshape", ["loop_time", "loop_time_shape"], [t.name]),
        *(inner for one in passes for inner in one.node),
        *(node("Mul", [f"loop_weight{k}", one.output[0].name], [f"loop_part{k}"]) for k, one in enumerate(passes)),
        node("Sum", [f"loop_part{k}" for k in range(len(passes))], ["loop_guided"]),
        *steps.advance(),
        node("Identity", ["loop_go"], ["loop_next"]),
    ]
    state, value = steps.state(shape), helper.make_tensor_value_info
    kind = helper.np_dtype_to_tensor_dtype(state.dtype)
    inputs = [value("loop_i", TensorProto.INT64, []), value("loop_go", TensorProto.BOOL, []),
              value("loop_in", kind, state.shape)]  # fmt: skip
    outputs = [value("loop_next", TensorProto.BOOL, []), value("loop_out", kind, state.shape)]
    return helper.make_graph(nodes, "step", inputs, outputs)


def _constants(steps: Steps, shape: tuple[int, ...], weights: Sequence[float]) -> list[Any]:
    """The loop's numbers and indices."""
    from onnx import numpy_helper

    arrays = {
        **steps.constants(shape), "loop_times": steps.times.astype(np.float32),
        "loop_time_shape": np.array([1]), "loop_count": np.array(len(steps.times)), "loop_true": np.array(True),
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
            conditions: The conditioning of each pass of `Sampler.passes`, as `Model.condition` and `Model.with_start`
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
