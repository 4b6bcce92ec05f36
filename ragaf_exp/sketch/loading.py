"""Weights of the neural extractors: from a local file, or from the hub by controlnet_aux's own loaders."""

from __future__ import annotations

import importlib
import logging
import os
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
from ragaf_exp.core.tensors import brief, read_tensors, state_of

log = logging.getLogger(__name__)
KEY = "sketch.weights"
SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load's own switch: controlnet_aux doesn't say weights_only itself


def library(module: str = "") -> ModuleType:
    """controlnet_aux, or a module of it. UserError where it is not installed."""
    name = f"controlnet_aux.{module}" if module else "controlnet_aux"
    try:
        with warnings.catch_warnings():  # it warns of its other detectors' optional parts, and of its own imports
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"sketch: this extractor needs controlnet_aux ({error}); "
                        "pip install 'ragaf_exp[extractors]'") from error  # fmt: skip


def from_hub(detector: str, repo: str, file: str) -> Any:
    """controlnet_aux's detector with the hub's weights, downloaded or from the hub's cache. UserError without them."""
    kind = getattr(library(), detector)
    log.info("sketch: %s from the hub's %s, unless it is here already", file, repo)
    try:  # building a network draws weights, which must not move a run's generator
        with _weights_only(), _quiet("huggingface_hub"), offline_if_unreachable(), torch.random.fork_rng(devices=[]):
            return kind.from_pretrained(repo, filename=file)
    except Exception as error:  # no network, no such host, a cut download: each library below has errors of its own
        raise UserError(f"{KEY}: {file} could not be had from the hub ({brief(error)}); fetch "
                        f"https://huggingface.co/{repo}/resolve/main/{file} elsewhere, put it anywhere on this machine "
                        f"and set sketch.weights=PATH/{file}") from error  # fmt: skip


@contextmanager
def _weights_only() -> Iterator[None]:
    before = os.environ.get(SAFE)
    os.environ[SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE]
        else:
            os.environ[SAFE] = before


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Its warnings of each retry would bury the one line that says what to do."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def read_state(path: str, file: str) -> dict[str, Tensor]:
    """A network's tensors from a .pth or .safetensors file; nothing is unpickled. file: its usual name, for messages.

    A checkpoint's state_dict is found inside it, and the prefix of nn.DataParallel is taken off. UserError where the
    file is missing, damaged or holds no tensors.
    """
    where = Path(path).expanduser()
    try:
        state = read_tensors(where, KEY)
    except FileNotFoundError as error:
        raise UserError(f"{KEY}={where}: no such file; put {file} there or name another") from error
    except IsADirectoryError as error:
        raise UserError(f"{KEY}={where}: is a folder; name the file in it, as {where / file}") from error
    while isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    return {k.removeprefix("module."): v.float() for k, v in state_of(state, where, KEY, file).items()}


def fill(network: nn.Module, state: dict[str, Tensor], path: str, file: str) -> nn.Module:
    """The network with these weights. UserError where they are another network's."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{KEY}={path}: not weights of this network ({brief(error)}); it should be a {file}") from error
    return network
