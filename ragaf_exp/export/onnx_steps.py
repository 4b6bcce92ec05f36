"""The fixed steps of an image as ONNX nodes: what happens around the network's predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.export.onnx_step import TOLERANCE

GIVEN = 2  # start and noise come before the predictions


@dataclass(frozen=True)
class Steps(ABC):
    """K fixed steps, as a loop over a state. Names of nodes are those of `onnx_image.export_image`."""

    times: np.ndarray  # (K,) timesteps

    @property
    def tolerance(self) -> float:
        """The largest difference from the sampler's latent, absolute or relative to the largest value."""
        return TOLERANCE

    @abstractmethod
    def begin(self) -> list[Any]:
        """Nodes from `start` and `noise` to the first state, `loop_first`."""

    @abstractmethod
    def scaled(self, x_t: str) -> list[Any]:
        """Nodes from the state `loop_in` to the network's input in float32. x_t: its name."""

    @abstractmethod
    def advance(self) -> list[Any]:
        """Nodes from `loop_in` and the prediction `loop_guided` to the next state, `loop_out`."""

    @abstractmethod
    def end(self) -> list[Any]:
        """Nodes from the last state, `loop_last`, to `latent`."""

    @abstractmethod
    def state(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return zeros of the state's type and shape. shape: (1,C,h,w) of the latent."""

    @abstractmethod
    def constants(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Return the numbers that the nodes use, by their names. shape: (1,C,h,w) of the latent."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The numbers for the file next to the graph."""


@dataclass(frozen=True)
class Sums(Steps):
    """Steps of a scheduler that is linear in noise, start and predictions: all are weighted sums of those.

    The weights depend on the settings alone. Sums are in float64, as large terms cancel where the noise level is high.
    """

    inputs: np.ndarray  # (K,2+K): weights of start, noise and each prediction in the network's input
    result: np.ndarray  # (2+K,): weights in the result

    def begin(self) -> list[Any]:
        from onnx import TensorProto
        from onnx.helper import make_node as node

        return [
            node("Concat", ["start", "noise"], ["loop_given"], axis=0),
            node("Cast", ["loop_given"], ["loop_exact"], to=TensorProto.DOUBLE),
            node("ScatterND", ["loop_zeros", "loop_places", "loop_exact"], ["loop_first"]),
        ]

    def scaled(self, x_t: str) -> list[Any]:
        from onnx import TensorProto
        from onnx.helper import make_node as node

        return [
            node("Gather", ["loop_weights", "loop_i"], ["loop_row"]),  # (2+K,1,1,1)
            node("Mul", ["loop_row", "loop_in"], ["loop_parts"]),
            node("ReduceSum", ["loop_parts", "loop_zero"], ["loop_x"], keepdims=1),
            node("Cast", ["loop_x"], [x_t], to=TensorProto.FLOAT),
        ]

    def advance(self) -> list[Any]:
        from onnx import TensorProto
        from onnx.helper import make_node as node

        return [
            node("Cast", ["loop_guided"], ["loop_new"], to=TensorProto.DOUBLE),
            node("Add", ["loop_i", "loop_offset"], ["loop_at"]),
            node("Reshape", ["loop_at", "loop_index_shape"], ["loop_index"]),
            node("ScatterND", ["loop_in", "loop_index", "loop_new"], ["loop_out"]),
        ]

    def end(self) -> list[Any]:
        from onnx import TensorProto
        from onnx.helper import make_node as node

        return [
            node("Mul", ["loop_result", "loop_last"], ["loop_weighted"]),
            node("ReduceSum", ["loop_weighted", "loop_zero"], ["loop_total"], keepdims=1),
            node("Cast", ["loop_total"], ["latent"], to=TensorProto.FLOAT),
        ]

    def state(self, shape: tuple[int, ...]) -> np.ndarray:
        """Start, noise and all predictions so far, float64."""
        return np.zeros((GIVEN + len(self.times), *shape[1:]))

    def constants(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {
            "loop_weights": self.inputs[:, :, None, None, None], "loop_result": self.result[:, None, None, None],
            "loop_zero": np.array([0]), "loop_index_shape": np.array([1, 1]), "loop_offset": np.array(GIVEN),
            "loop_places": np.arange(GIVEN)[:, None], "loop_zeros": self.state(shape),
        }  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        return {"times": self.times.tolist(), "inputs": self.inputs.tolist(), "result": self.result.tolist()}


def sums_of(sampler: Sampler, scheduler: Any, from_start: bool, strength: float) -> Sums:
    """Read the weights off a scheduler, by sampling with unit vectors instead of latents and predictions.

    Args:
        sampler: The run's sampler.
        scheduler: Its scheduler, with its timesteps set.
        from_start: Sampling starts from a latent, noised to `strength`.
        strength: Share of the steps that are run then, in (0,1].
    """
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
    used = GIVEN + len(times)
    result = out.get("pred_original_sample", x).flatten().double().numpy()
    return Sums(np.array(times), np.stack(inputs)[:, :used], result[:used])
