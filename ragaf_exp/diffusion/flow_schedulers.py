"""diffusers' samplers of flows, with the methods that the sampler calls on every scheduler."""

from __future__ import annotations

from typing import Any

from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import Tensor


class _Flow:
    """The last step ends at the data: times are 1, ..., 1/steps before the shift, as in Flux's pipeline.

    The steps count from the first, so that no timestep is looked up on the device.
    """

    init_noise_sigma = 1.0
    sigma_min: float

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        self.sigma_min = 1 / steps  # diffusers spaces times evenly down to this one
        super().set_timesteps(steps, device=device)  # type: ignore[misc]
        self.set_begin_index(0)  # type: ignore[attr-defined]

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def add_noise(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """At the first step: noise t + (1 - t) sample, all (B,C,h,w)."""
        sigma = self.sigmas[self.begin_index]  # type: ignore[attr-defined]
        return sigma * noise + (1 - sigma) * sample


class Euler(_Flow, FlowMatchEulerDiscreteScheduler):
    order = 1


class Heun(_Flow, FlowMatchHeunDiscreteScheduler):
    """Two calls of the network per step, one in the last."""

    order = 2


def make_scheduler(name: str, timesteps: int, shift: float) -> Any:
    """A fresh sampler.

    Args:
        name: euler, heun, or dpm (DPM-Solver++ 2M).
        timesteps: T.
        shift: Shift of the times towards the noise, 1 = none.

    Returns:
        A scheduler of diffusers' kind.
    """
    if name == "dpm":
        return DPMSolverMultistepScheduler(
            num_train_timesteps=timesteps, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
            algorithm_type="dpmsolver++", solver_order=2,
        )  # fmt: skip
    return {"euler": Euler, "heun": Heun}[name](num_train_timesteps=timesteps, shift=shift)
