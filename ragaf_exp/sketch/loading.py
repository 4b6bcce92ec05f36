"""Weights of the neural extractors, from a local file, or from the hub by controlnet_aux's loaders."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.hub import offline_if_unreachable
from ragaf_exp.core.tensors import brief, read_tensors, state_of, weights_only

log = logging.getLogger(__name__)
KEY = "sketch.weights"


def library(module: str = "") -> ModuleType:
    """Import controlnet_aux, or a module of it. Raises UserError if it is not installed."""
    name = f"controlnet_aux.{module}" if module else "controlnet_aux"
    try:
        with warnings.catch_warnings():  # it warns about optional parts of other detectors, and about its own imports
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"sketch: this extractor needs controlnet_aux ({error}); "
                        "pip install 'ragaf_exp[extractors]'") from error  # fmt: skip


def from_hub(detector: str, repo: str, file: str) -> Any:
    """Load a controlnet_aux detector with the hub's weights, downloaded or cached.

    Args:
        detector: Name of the detector's class.
        repo: Repository on the hub.
        file: Weight file in it.

    Returns:
        The detector.

    Raises:
        UserError: The weights are not available.
    """
    kind = getattr(library(), detector)
    log.info("sketch: loading %s of the hub's %s, downloaded unless cached", file, repo)
    try:  # building a network samples initial weights, which must not advance a run's generator
        with weights_only(), _quiet("huggingface_hub"), offline_if_unreachable(), torch.random.fork_rng(devices=[]):
            return kind.from_pretrained(repo, filename=file)
    except Exception as error:  # no network, no such host, a broken download: each library raises different errors
        raise UserError(f"{KEY}: {file} could not be fetched from the hub ({brief(error)}); fetch "
                        f"https://huggingface.co/{repo}/resolve/main/{file} elsewhere, put it anywhere on this machine "
                        f"and set sketch.weights=PATH/{file}") from error  # fmt: skip


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Suppress a library's warnings about retries, which would hide the error message."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_state(path: str, file: str) -> dict[str, Tensor]:
    """Read a network's tensors from a .pth or .safetensors file, without unpickling anything else.

    The state_dict may be nested in a checkpoint; the prefix of nn.DataParallel is removed.

    Args:
        path: The file.
        file: Its usual name, for messages.

    Returns:
        Parameter name -> float32 tensor.

    Raises:
        UserError: The file is missing, damaged or holds no tensors.
    """
    location = Path(path).expanduser()
    try:
        state = read_tensors(location, KEY)
    except FileNotFoundError as error:
        raise UserError(f"{KEY}={location}: no such file; put {file} there or name another") from error
    except IsADirectoryError as error:
        raise UserError(f"{KEY}={location}: is a folder; name the file in it, as {location / file}") from error
    while isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    return {k.removeprefix("module."): v.float() for k, v in state_of(state, location, KEY, file).items()}


def fill(network: nn.Module, state: dict[str, Tensor], path: str, file: str) -> nn.Module:
    """Load weights into a network.

    Args:
        network: The network, changed in place.
        state: Parameter name -> tensor.
        path: The weights' file, for messages.
        file: Its usual name, for messages.

    Returns:
        The network.

    Raises:
        UserError: The weights belong to another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{KEY}={path}: not weights of this network ({brief(error)}); it should be a {file}") from error
    return network
