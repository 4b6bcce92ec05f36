"""The diffusion that a Stable Diffusion folder was trained with (config group `diffusion`)."""

from __future__ import annotations

from typing import Any

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.diffusion.process import PREDICTIONS, Diffusion
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, fetch, read_config

FOLDER, FILE = "scheduler", "scheduler_config.json"
DEFAULTS = {  # of diffusers' schedulers, for what a file leaves out
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "prediction_type": "epsilon", "rescale_betas_zero_snr": False,
}  # fmt: skip
SD15 = {**DEFAULTS, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class FolderDiffusion(Diffusion):
    """As scheduler/scheduler_config.json has it: prediction of noise or v, schedule, timesteps.

    source, revision, offline: as in the group `backbone`; without a source Stable Diffusion 1.5's numbers.
    min_snr, snr_offset: as Diffusion's.
    """

    def __init__(
        self, source: str = "", revision: str = "", offline: bool = False, min_snr: limits.MinSnr = 5.0,
        snr_offset: limits.SnrOffset = 0.0,
    ):  # fmt: skip
        origin = Origin("diffusion", source, revision, offline)
        c: dict[str, Any] = settings(read_config(origin, FOLDER, FILE)) if source else SD15
        ours = {theirs: name for name, theirs in PREDICTIONS.items()}
        if c["prediction_type"] not in ours:
            raise UserError(f"{origin.key}: {FILE} says prediction_type={c['prediction_type']}; known are {sorted(ours)}")
        super().__init__(
            c["num_train_timesteps"], c["beta_schedule"], ours[c["prediction_type"]], bool(c["rescale_betas_zero_snr"]),
            min_snr, snr_offset, c["beta_start"], c["beta_end"],
        )  # fmt: skip


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Of a scheduler's config what decides the forward process and the prediction."""
    return {name: config.get(name, default) for name, default in DEFAULTS.items()}


def schedule_of(origin: Origin) -> dict[str, Any] | None:
    """The settings beside a UNet; None where its folder says nothing of them, or there is no folder."""
    if not origin.source or origin.weights != PRETRAINED:
        return None
    if not (fetch(origin, [f"{FOLDER}/{FILE}"]) / FOLDER / FILE).is_file():
        return None
    return settings(read_config(origin, FOLDER, FILE))
