"""Objects from config: `_target_` is resolved only inside this package, whoever wrote the config."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.core.errors import UserError

ALLOWED = "ragaf_exp."


def locate(target: object, key: str) -> type:
    """The class that a `_target_` names. UserError where it is none of this package's own classes."""
    refusal = UserError(f"{key}._target_={target}: not a class of ragaf_exp; nothing else may be built from a config")
    if not isinstance(target, str) or not target.startswith(ALLOWED):
        raise refusal
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_={target}: there is no such class") from error
    if not inspect.isclass(found) or found.__module__ != module:  # no way out through what a module imports
        raise refusal
    return found


def build(node: DictConfig, key: str, **wiring: Any) -> Any:
    """The object that config group `key` describes.

    wiring: what constructors may ask for that no config holds; each gets what it names.
    """
    asked = inspect.signature(locate(node.get("_target_"), key).__init__).parameters
    for path in _nested_targets(node, key):
        raise UserError(f"{path}: no _target_ is resolved below a group's own")
    return instantiate(node, _partial_=True, _convert_="all")(**{k: v for k, v in wiring.items() if k in asked})


def _nested_targets(node: DictConfig, key: str) -> list[str]:
    inner = [(f"{key}.{k}", v) for k, v in OmegaConf.to_container(node).items()]
    found = []
    while inner:
        path, value = inner.pop()
        if isinstance(value, dict):
            found += [f"{path}.{k}" for k in value if str(k).startswith("_target_")]
            inner += [(f"{path}.{k}", v) for k, v in value.items()]
        elif isinstance(value, list):
            inner += [(f"{path}[{i}]", v) for i, v in enumerate(value)]
    return found
