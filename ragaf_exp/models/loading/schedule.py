"""The diffusion process that a Stable Diffusion folder was trained with (config group `diffusion`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.diffusion.process import PREDICTIONS, Diffusion
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, fetch, read_config
from ragaf_exp.models.loading.single_file import is_single_file, stated_prediction

FOLDER, FILE = "scheduler", "scheduler_config.json"
DEFAULTS = {  # defaults of diffusers' schedulers, for keys that a file omits
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "prediction_type": "epsilon", "rescale_betas_zero_snr": False,
}  # fmt: skip
SD15 = {**DEFAULTS, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class FolderDiffusion(Diffusion):
    """The process given by scheduler/scheduler_config.json: prediction type, noise schedule and number of timesteps.

    Args:
        source: A folder or hub id in diffusers' layout; "" = Stable Diffusion 1.5's settings.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        min_snr: Gamma of the min-SNR loss weight, 0 = off.
        snr_offset: Number that is added to the SNR in the loss weight.

    Raises:
        UserError: The file is missing or damaged, or its prediction type is unknown.
    """

    def __init__(
        self, source: str = "", revision: str = "", offline: bool = False, min_snr: limits.MinSnr = 5.0,
        snr_offset: limits.SnrOffset = 0.0,
    ):  # fmt: skip
        origin = Origin("diffusion", source, revision, offline)
        c: dict[str, Any] = settings(_config(origin)) if source else SD15
        ours = {theirs: name for name, theirs in PREDICTIONS.items()}
        if c["prediction_type"] not in ours:
            raise UserError(f"{origin.key}: {FILE} has prediction_type={c['prediction_type']}; known are {sorted(ours)}")
        super().__init__(
            c["num_train_timesteps"], c["beta_schedule"], ours[c["prediction_type"]], bool(c["rescale_betas_zero_snr"]),
            min_snr, snr_offset, c["beta_start"], c["beta_end"],
        )  # fmt: skip


def _config(origin: Origin) -> dict[str, Any]:
    """Return a scheduler's config; a single file has Stable Diffusion's, with the prediction type that it states."""
    if is_single_file(origin.source):
        return {**SD15, "prediction_type": stated_prediction(Path(origin.source).expanduser())}
    return read_config(origin, FOLDER, FILE)


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a scheduler's config that determine the forward process and the prediction type."""
    return {name: config.get(name, default) for name, default in DEFAULTS.items()}


def schedule_of(origin: Origin) -> dict[str, Any] | None:
    """Return the scheduler settings of a UNet's source; None if it has no scheduler config, or there is no source."""
    if not origin.source or origin.weights != PRETRAINED:
        return None
    if is_single_file(origin.source):
        return settings(_config(origin))
    if not (fetch(origin, [f"{FOLDER}/{FILE}"]) / FOLDER / FILE).is_file():
        return None
    return settings(read_config(origin, FOLDER, FILE))
