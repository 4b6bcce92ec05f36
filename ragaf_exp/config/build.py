"""Construction of objects from config; a `_target_` is resolved only inside this package, whoever wrote the config."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.core.errors import UserError

ALLOWED = "ragaf_exp."


def locate(target: object, key: str) -> type:
    """Look up the class that a `_target_` names. Raises UserError if it is not one of this package's classes."""
    refusal = UserError(f"{key}._target_={target}: not a class of ragaf_exp; nothing else may be built from a config")
    if not isinstance(target, str) or not target.startswith(ALLOWED):
        raise refusal
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}._target_={target}: there is no such class") from error
    if not inspect.isclass(cls) or cls.__module__ != module:  # classes that a module imports are not its own
        raise refusal
    return cls


def build(node: DictConfig, key: str, **wiring: Any) -> Any:
    """Construct the object that a config group describes.

    Args:
        node: The group's config, with a `_target_`.
        key: Its key in the config, for messages.
        **wiring: Arguments that no config holds; the constructor gets those that it has parameters for.

    Raises:
        UserError: The target is not allowed, or there is another `_target_` further down.
    """
    constructor = locate(node.get("_target_"), key)
    parameters = inspect.signature(constructor.__init__).parameters
    for path in _nested_targets(node, key):
        raise UserError(f"{path}: no _target_ is resolved below a group's own")
    arguments = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    arguments.pop("_target_")
    return constructor(**arguments, **{k: v for k, v in wiring.items() if k in parameters})


def _nested_targets(node: DictConfig, key: str) -> list[str]:
    inner = [(f"{key}.{k}", v) for k, v in OmegaConf.to_container(node).items()]
    targets = []
    while inner:
        path, value = inner.pop()
        if isinstance(value, dict):
            targets += [f"{path}.{k}" for k in value if str(k).startswith("_target_")]
            inner += [(f"{path}.{k}", v) for k, v in value.items()]
        elif isinstance(value, list):
            inner += [(f"{path}[{i}]", v) for i, v in enumerate(value)]
    return targets
