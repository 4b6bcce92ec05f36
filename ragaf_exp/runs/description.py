"""config.yaml and environment.json, which describe the run of a folder: written once, and again if damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import config_hash, load_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum, is_damaged, write_json, write_text
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.runs import origin
from ragaf_exp.runs.environment import environment

log = logging.getLogger(__name__)
CONFIG, ENVIRONMENT = "config.yaml", "environment.json"


def is_described(folder: Path, cfg: DictConfig) -> bool:
    """Whether both files exist and config.yaml equals this config."""
    return _fits(folder, cfg) and not is_damaged(folder / ENVIRONMENT)


def describe(folder: Path, cfg: DictConfig) -> None:
    """Write those of the two files that are missing, damaged or edited."""
    config = folder / CONFIG
    if not _fits(folder, cfg):
        if is_regular(config):
            log.warning("%s: damaged, or changed since the run began; written again", config)
        write_text(config, OmegaConf.to_yaml(cfg, resolve=True))
        origin.sign(folder)
    if is_damaged(folder / ENVIRONMENT):
        write_json(folder / ENVIRONMENT, environment())


def check_unedited(folder: Path, state: dict[str, Any], cfg: DictConfig) -> None:
    """Refuse a config.yaml that was changed since the run began. Runs of earlier versions can't be checked.

    Args:
        folder: The run's folder.
        state: The content of its status.json, where `config` is the checksum of config.yaml as it was written.
        cfg: The config that was read.

    Raises:
        UserError: The config was changed.
    """
    expected = state.get("config")
    if expected not in (None, checksum(folder / CONFIG)) and config_hash(cfg) != folder.name:
        raise UserError(f"{folder / CONFIG}: was changed since the run began and does not fit it any more; "
                        "run its training command again, which writes it again")  # fmt: skip


def _fits(folder: Path, cfg: DictConfig) -> bool:
    try:
        return config_hash(load_config(folder / CONFIG)) == config_hash(cfg)
    except UserError:
        return False
