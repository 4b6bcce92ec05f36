"""Tensors of images as pixels, and a network's tensors from a file that a user names, without unpickling anything else."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragaf_exp.core.errors import UserError

MASK_VALUE = -1e4  # of a masked logit: far below any other, and finite in half precision, so that no row becomes NaN
SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load's own switch, for libraries that don't say weights_only themselves


def to_uint8(images: Tensor) -> np.ndarray:
    """(B,3,H,W) in [-1,1] -> (B,H,W,3) uint8."""
    scaled = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def read_tensors(path: Path, key: str) -> Any:
    """Load the content of a .pth or .safetensors file.

    Args:
        path: The weight file.
        key: The config key that names it, for messages.

    Raises:
        UserError: The file can't be read or holds more than tensors.
        FileNotFoundError: The file is missing; the caller knows what to suggest.
        IsADirectoryError: The path is a folder.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError):
        raise
    except pickle.UnpicklingError as error:
        raise UserError(f"{key}={path}: holds more than tensors, or is damaged; it is not read") from error
    except Exception as error:  # a damaged file can make a reader raise any type
        raise UserError(f"{key}={path}: can't be read ({brief(error)}); fetch it again") from error


def state_of(content: Any, path: Path, key: str, file: str) -> dict[str, Tensor]:
    """Check that the content of a weight file is a state dict.

    Args:
        content: What `read_tensors` returned.
        path: The weight file, for messages.
        key: The config key that names it, for messages.
        file: The usual name of such a file, for messages.

    Returns:
        The content itself, parameter name -> tensor.

    Raises:
        UserError: The content is anything else.
    """
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"{key}={path}: holds no network's weights; it should be a {file}")
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
    """Refuse custom code from a model folder or hub id, instead of asking for consent on the terminal.

    For libraries that load through transformers' Auto classes and do not pass trust_remote_code=False on.
    """
    from transformers import dynamic_module_utils

    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # no time for an answer: transformers raises
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def brief(error: BaseException) -> str:
    """Shorten an error's message to one line of at most 160 characters."""
    return " ".join(str(error).split())[:160] or type(error).__name__
