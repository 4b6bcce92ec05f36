"""Diffusion (config group `diffusion`): the forward process, prediction types and their loss weights.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise; SNR = abar / (1 - abar). Zero terminal SNR: Lin et al. 2023,
arXiv 2305.08891. Min-SNR weighting: Hang et al. 2023, arXiv 2303.09556.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least, between
from ragaf_exp.diffusion.base import FLOW, Process

PREDICTIONS = {"x0": "sample", "v": "v_prediction", "eps": "epsilon"}  # ours -> diffusers'
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": True}),
    "dpm": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "euler": (EulerDiscreteScheduler, {}),
}


class Diffusion(Process):
    """A discrete variance-preserving process.

    Args:
        timesteps: T.
        schedule: Beta schedule of diffusers: squaredcos_cap_v2, linear or scaled_linear.
        prediction: Prediction type: x0, v or eps.
        zero_terminal_snr: Whether the last timestep is pure noise.
        min_snr: gamma of Min-SNR weighting; 0 = no weighting.
        snr_offset: The squared error of x_0 has weight min(SNR + offset, gamma). With 1, the noisiest timesteps still
            contribute to the loss.
        beta_start: First beta of a linear schedule; squaredcos_cap_v2 ignores it.
        beta_end: Last beta of a linear schedule; squaredcos_cap_v2 ignores it.

    Raises:
        UserError: A name is unknown, a value is out of range, or eps is combined with zero terminal SNR.
    """

    abar: Tensor  # (T,) float64
    schedulers = tuple(SCHEDULERS)

    def __init__(
        self, timesteps: limits.Timesteps = 1000, schedule: str = "squaredcos_cap_v2", prediction: str = "x0",
        zero_terminal_snr: bool = True, min_snr: limits.MinSnr = 5.0, snr_offset: limits.SnrOffset = 1.0,
        beta_start: limits.Beta = 1e-4, beta_end: limits.Beta = 0.02,
    ):  # fmt: skip
        super().__init__()
        at_least("diffusion", 2, timesteps=timesteps)
        between("diffusion.beta_start", beta_start, 0, 1, 1e-4, above=True)
        between("diffusion.beta_end", beta_end, beta_start, 1, 0.02)
        at_least("diffusion", 0, min_snr=min_snr, snr_offset=snr_offset)
        if prediction not in PREDICTIONS:
            raise UserError(f"diffusion.prediction={prediction}: must be one of {sorted(PREDICTIONS)}")
        if zero_terminal_snr and prediction == "eps":
            raise UserError("diffusion.prediction=eps: does not determine x0 at zero terminal SNR; "
                            "set diffusion.zero_terminal_snr=false, or take x0 or v")  # fmt: skip
        self.config: dict[str, Any] = {
            "num_train_timesteps": timesteps, "beta_schedule": schedule, "prediction_type": PREDICTIONS[prediction],
            "rescale_betas_zero_snr": zero_terminal_snr, "beta_start": beta_start, "beta_end": beta_end,
        }  # fmt: skip
        self.timesteps, self.prediction = timesteps, prediction
        self.min_snr, self.snr_offset = min_snr, snr_offset
        try:
            abar = DDPMScheduler(**self.config).alphas_cumprod
        except NotImplementedError as error:
            raise UserError(f"diffusion.schedule={schedule}: not one of diffusers' beta schedules") from error
        self.register_buffer("abar", abar.double().clamp(0, 1 - 1e-8), persistent=False)

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(abar) x_0 + sqrt(1 - abar) noise.

        Args:
            x_0: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            x_t, (B,C,h,w).
        """
        a, s = self._scales(t, x_0)
        return a * x_0 + s * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The training target: x_0, the noise, or v = sqrt(abar) noise - sqrt(1 - abar) x_0.

        Args:
            x_0: Clean latents, (B,C,h,w).
            noise: Standard normal, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            The target, (B,C,h,w).
        """
        if self.prediction == "x0":
            return x_0
        if self.prediction == "eps":
            return noise
        a, s = self._scales(t, x_0)
        return a * noise - s * x_0

    def to_x0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Convert a prediction to an estimate of x_0.

        Args:
            prediction: Output of the network, (B,C,h,w).
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).

        Returns:
            The estimate, (B,C,h,w).
        """
        if self.prediction == "x0":
            return prediction
        a, s = self._scales(t, x_t)
        return a * x_t - s * prediction if self.prediction == "v" else (x_t - s * prediction) / a

    def weight(self, t: Tensor) -> Tensor:
        """Weight (B,) of the squared error of the prediction at timesteps t (B,)."""
        snr = self.abar[t] / (1 - self.abar[t])
        if self.min_snr <= 0:
            return torch.ones_like(snr).float()
        weight = (snr + self.snr_offset).clamp(max=self.min_snr)
        per_x0 = {"x0": torch.ones_like(snr), "v": snr + 1, "eps": snr}[self.prediction]
        return (weight / per_x0).float()

    def scheduler(self, name: str) -> Any:
        """Create a scheduler of diffusers for this process. name: ddim, dpm or euler."""
        kind, options = SCHEDULERS[name]
        return kind(**self.config, timestep_spacing="trailing", **options)

    def check_pretrained(self, wanted: dict[str, Any]) -> None:
        """Raise UserError if a backbone was trained with another process. wanted: settings of its scheduler_config.json."""
        if wanted["prediction_type"] == FLOW:
            raise UserError("diffusion: the backbone was trained as a flow (its scheduler/scheduler_config.json); "
                            "take diffusion=folder_flow")  # fmt: skip
        free = ("beta_start", "beta_end") if wanted["beta_schedule"] == "squaredcos_cap_v2" else ()
        for name, value in wanted.items():
            if name not in free and self.config[name] != value:
                ours, file = self.config[name], "scheduler/scheduler_config.json"
                raise UserError(f"diffusion: {name}={ours}, and the backbone was trained with {value} (its {file}); "
                                "take diffusion=folder, which reads its settings")  # fmt: skip

    def _scales(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.abar[t][:, None, None, None]
        return abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)
