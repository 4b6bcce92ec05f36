"""Reads a feature network's weights: a file that the user names, never unpickled, or a library's own download."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import brief, read_tensors, state_of

PATIENCE = 30.0  # seconds without an answer after which a download is given up


def named(path: str, key: str, file: str) -> Path:
    """The file that a key names, or `file` in the folder that it names. UserError where it is not there."""
    where = Path(path).expanduser()
    where = where / file if where.is_dir() else where
    if not where.is_file():
        raise UserError(f"{key}={path}: no such file; put {file} there or name another")
    return where


def read_state(path: str, key: str, file: str) -> dict[str, Tensor]:
    """A network's tensors from a .pth or .safetensors file. UserError where it is missing, damaged or another thing."""
    where = named(path, key, file)
    return state_of(read_tensors(where, key), where, key, file)


@contextmanager
def downloading(key: str, what: str, url: str) -> Iterator[None]:
    """Around a library's own download, which knows no time limit: its failure becomes Unavailable."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    except Exception as error:  # no network, no such host, a cut download, a full disk: each has errors of its own
        raise Unavailable(f"{key}: {what} could not be downloaded ({brief(error)}); fetch {url} elsewhere and set "
                          f"{key}=PATH") from error  # fmt: skip
    finally:
        socket.setdefaulttimeout(before)
