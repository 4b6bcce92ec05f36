"""Euler's method on a VP process as ONNX nodes, operation by operation as the scheduler computes it.

Its latents have the noise level sigma, which starts at thousands. There float32 rounds a step's result by more than 1e-4
relative to the next latent, so that sums in another order or precision give another image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.diffusion.process import PREDICTIONS
from ragaf_exp.diffusion.sampler import Sampler
from ragaf_exp.export.onnx_steps import Steps

NUMBERS = ("sigma", "change", "scale", "predicted", "divisor")  # of each step, which the graph looks up
LATENT, ESTIMATE = [0], [1]  # the state: x, and the estimate of x_0 after the last step
# Where sigma falls by more than this in one step, PyTorch's sampler on one thread and on two differed by up to 2.7e-5 from
# itself: last bits of the first latents are a large part of the next ones.
STEEP, STEEP_TOLERANCE = 500.0, 1e-4


@dataclass(frozen=True)
class Euler(Steps):
    """Steps of diffusers' EulerDiscreteScheduler, in float32. All numbers are (K,)."""

    prediction: str  # of the process: x0, eps or v
    first: np.ndarray  # (2,): weights of start and noise in the first latent
    sigma: np.ndarray
    change: np.ndarray  # of sigma in each step
    scale: np.ndarray  # divisor of the network's input
    predicted: np.ndarray  # weight of the prediction v in the estimate of x_0
    divisor: np.ndarray  # of the latent in that estimate

    @property
    def tolerance(self) -> float:
        steep = (self.sigma[:-1] > STEEP * self.sigma[1:]).any()
        return STEEP_TOLERANCE if steep else super().tolerance

    def begin(self) -> list[Any]:
        from onnx.helper import make_node as node

        return [
            node("Mul", ["start", "loop_start"], ["loop_started"]),
            node("Mul", ["noise", "loop_noise"], ["loop_noised"]),
            node("Add", ["loop_started", "loop_noised"], ["loop_x0"]),
            node("Concat", ["loop_x0", "loop_x0"], ["loop_first"], axis=0),
        ]

    def scaled(self, x_t: str) -> list[Any]:
        from onnx.helper import make_node as node

        return [
            *(node("Gather", [f"loop_{name}s", "loop_i"], [f"loop_{name}"]) for name in NUMBERS),
            node("Gather", ["loop_in", "loop_latent"], ["loop_x"]),
            node("Div", ["loop_x", "loop_scale"], [x_t]),
        ]

    def advance(self) -> list[Any]:
        from onnx.helper import make_node as node

        return [
            *self._estimate(),
            node("Sub", ["loop_x", "loop_estimate"], ["loop_rest"]),
            node("Div", ["loop_rest", "loop_sigma"], ["loop_slope"]),
            node("Mul", ["loop_slope", "loop_change"], ["loop_step"]),
            node("Add", ["loop_x", "loop_step"], ["loop_moved"]),
            node("Concat", ["loop_moved", "loop_estimate"], ["loop_out"], axis=0),
        ]

    def _estimate(self) -> list[Any]:
        """Nodes from the latent and the prediction to the estimate of x_0."""
        from onnx.helper import make_node as node

        return {
            "x0": [node("Identity", ["loop_guided"], ["loop_estimate"])],
            "eps": [node("Mul", ["loop_guided", "loop_sigma"], ["loop_noise_part"]),
                    node("Sub", ["loop_x", "loop_noise_part"], ["loop_estimate"])],
            "v": [node("Mul", ["loop_guided", "loop_predicted"], ["loop_v_part"]),
                  node("Div", ["loop_x", "loop_divisor"], ["loop_x_part"]),
                  node("Add", ["loop_v_part", "loop_x_part"], ["loop_estimate"])],
        }[self.prediction]  # fmt: skip

    def end(self) -> list[Any]:
        from onnx.helper import make_node as node

        return [node("Gather", ["loop_last", "loop_result"], ["latent"])]

    def state(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros((2, *shape[1:]), np.float32)

    def constants(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {
            **{f"loop_{name}s": getattr(self, name) for name in NUMBERS},
            "loop_start": self.first[0], "loop_noise": self.first[1],
            "loop_latent": np.array(LATENT), "loop_result": np.array(ESTIMATE),
        }  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        return {"times": self.times.tolist(), "first": self.first.tolist(), "sigma": self.sigma.tolist(),
                "change": self.change.tolist(), "prediction": self.prediction}  # fmt: skip


def euler_of(sampler: Sampler, scheduler: Any, from_start: bool, strength: float) -> Euler:
    """Compute a scheduler's numbers as its own code does, in float32.

    Args:
        sampler: The run's sampler.
        scheduler: Its EulerDiscreteScheduler, with its timesteps set.
        from_start: Sampling starts from a latent, noised to `strength`.
        strength: Share of the steps that are run then, in (0,1].
    """
    one, none = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    _, noised = sampler.begin(scheduler, one, none if from_start else None, strength)
    timesteps, both = sampler.begin(scheduler, none, one if from_start else None, strength)
    first = len(scheduler.timesteps) - len(timesteps)
    sigmas: list[Tensor] = list(scheduler.sigmas[first:].float())
    steps = list(zip(sigmas[:-1], sigmas[1:], strict=True))
    prediction = {theirs: ours for ours, theirs in PREDICTIONS.items()}[scheduler.config.prediction_type]
    return Euler(
        np.array([float(t) for t in timesteps]), prediction, torch.stack([both, noised]).flatten().numpy(),
        _stacked(s for s, _ in steps), _stacked(after - s for s, after in steps),
        _stacked((s**2 + 1) ** 0.5 for s, _ in steps), _stacked(-s / (s**2 + 1) ** 0.5 for s, _ in steps),
        _stacked(s**2 + 1 for s, _ in steps),
    )  # fmt: skip


def _stacked(numbers: Any) -> np.ndarray:
    return torch.stack(list(numbers)).numpy()
