"""Flow schedulers of diffusers, with the methods that the sampler calls on every scheduler."""

from __future__ import annotations

from typing import Any

from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import Tensor


class FlowScheduler:
    """Times are 1, ..., 1/steps before the shift, as in the Flux pipeline, and the last step ends at the data.

    The begin index is set to 0, so that the scheduler looks up no timestep on the device.
    """

    init_noise_sigma = 1.0
    sigma_min: float

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        self.sigma_min = 1 / steps  # diffusers spaces times evenly down to this value
        super().set_timesteps(steps, device=device)  # type: ignore[misc]
        self.set_begin_index(0)  # type: ignore[attr-defined]

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample

    def add_noise(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noise a sample to the time s of the first step.

        Args:
            sample: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            timesteps: Not used.

        Returns:
            (1 - s) sample + s noise, (B,C,h,w).
        """
        sigma = self.sigmas[self.begin_index]  # type: ignore[attr-defined]
        return sigma * noise + (1 - sigma) * sample


class Euler(FlowScheduler, FlowMatchEulerDiscreteScheduler):
    order = 1


class Heun(FlowScheduler, FlowMatchHeunDiscreteScheduler):
    """The network is called twice per step, but once in the last step."""

    order = 2


def make_scheduler(name: str, timesteps: int, shift: float) -> Any:
    """Create a scheduler.

    Args:
        name: euler, heun, or dpm (DPM-Solver++ 2M).
        timesteps: T.
        shift: Shift of the times towards the noise, 1 = none.

    Returns:
        A scheduler with the interface of diffusers.
    """
    if name == "dpm":
        return DPMSolverMultistepScheduler(
            num_train_timesteps=timesteps, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
            algorithm_type="dpmsolver++", solver_order=2,
        )  # fmt: skip
    return {"euler": Euler, "heun": Heun}[name](num_train_timesteps=timesteps, shift=shift)
