"""Differences between Hydra 1.3 with OmegaConf 2.3, and Hydra 1.4 with OmegaConf 2.4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import OmegaConf

from ragaf_exp.core.resources import CONF

RECENT = tuple(int(part) for part in hydra.__version__.split(".")[:2]) >= (1, 4)
VERSION_BASE: dict[str, str] = {} if RECENT else {"version_base": "1.3"}  # the defaults of 1.4, which deprecates it


def register_resolver(name: str, resolve: Callable[[Any], Any]) -> None:
    """Register a resolver of interpolations, or replace it; each OmegaConf deprecates the other's method."""
    register = OmegaConf.register_resolver if RECENT else OmegaConf.register_new_resolver
    register(name, resolve, replace=True)


def is_study(preset: str) -> bool:
    """Whether a preset of conf/experiment/, or one that it extends, is a multirun.

    Hydra 1.3 reads hydra.mode of presets itself, Hydra 1.4 that of the command line and of config.yaml only.
    """
    path = CONF / "experiment" / f"{preset}.yaml"
    if not path.is_file():
        return False
    content = OmegaConf.load(path)
    extended = [entry for entry in content.get("defaults", []) if isinstance(entry, str)]
    return OmegaConf.select(content, "hydra.mode") == "MULTIRUN" or any(map(is_study, extended))
