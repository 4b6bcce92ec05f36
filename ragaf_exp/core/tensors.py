"""Reads a network's tensors from a file that a user names; nothing is unpickled."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ragaf_exp.core.errors import UserError

MASK_VALUE = -1e4  # of a masked logit: far below any other, and finite in half precision, so that no row becomes NaN
SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load's own switch, for libraries that don't say weights_only themselves


def read_tensors(where: Path, key: str) -> Any:
    """What a .pth or .safetensors file holds; key: of the config, for messages.

    UserError where it can't be read or holds more than tensors; FileNotFoundError and IsADirectoryError are left.
    """
    try:
        if where.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(where)
        return torch.load(where, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{key}={where}: holds more than tensors, or is damaged; it is not read") from error
    except Exception as error:  # what a damaged file makes a reader raise is of any type
        raise UserError(f"{key}={where}: can't be read ({brief(error)}); fetch it again") from error


def state_of(content: Any, where: Path, key: str, file: str) -> dict[str, Tensor]:
    """The content itself where it is a network's named tensors, else UserError; file: the usual name."""
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{key}={where}: holds no network's weights; it should be a {file}")
    return content


@contextmanager
def weights_only() -> Iterator[None]:
    """In here torch.load unpickles tensors alone, whatever a library asks of it."""
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
def no_remote_code() -> Iterator[None]:
    """Where a library loads by transformers' Auto classes and passes no trust_remote_code=False on: custom code, which a
    folder or hub id may name, is refused instead of a question to the terminal."""
    from transformers import dynamic_module_utils

    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # no time for an answer: transformers raises
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def brief(error: BaseException) -> str:
    """An error's first words in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
