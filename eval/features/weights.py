"""Reads a feature network's weights, from a file that the user names, never unpickled, or from a library's download."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from eval.unavailable import Unavailable
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensors import brief, read_tensors, state_of

PATIENCE = 30.0  # seconds without an answer after which a download is aborted


def named(path: str, key: str, file: str) -> Path:
    """The weights file that a config key names.

    Args:
        path: The key's value: the file, or its folder.
        key: The key, for messages.
        file: The file's name in a folder.

    Raises:
        UserError: If there is no such file.
    """
    where = Path(path).expanduser()
    where = where / file if where.is_dir() else where
    if not where.is_file():
        raise UserError(f"{key}={path}: no such file; put {file} there or name another")
    return where


def read_state(path: str, key: str, file: str) -> dict[str, Tensor]:
    """Read a network's tensors from a .pth or .safetensors file.

    Args:
        path: The file, or its folder.
        key: The config key that names it, for messages.
        file: The file's name in a folder.

    Raises:
        UserError: If the file is missing, damaged or holds something else.
    """
    where = named(path, key, file)
    return state_of(read_tensors(where, key), where, key, file)


@contextmanager
def downloading(key: str, what: str, url: str) -> Iterator[None]:
    """Give a library's download a time limit and turn its failure into Unavailable.

    Args:
        key: The config key that a local file may be given by.
        what: The download, for the message.
        url: Its address, for the message.

    Raises:
        Unavailable: If the download fails.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    except Exception as error:  # no network, no such host, a cut download and a full disk raise different types
        raise Unavailable(f"{key}: {what} could not be downloaded ({brief(error)}); fetch {url} elsewhere and set "
                          f"{key}=PATH") from error  # fmt: skip
    finally:
        socket.setdefaulttimeout(before)
