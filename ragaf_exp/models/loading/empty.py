"""Networks without weights: names, shapes and settings, for which nothing is read or initialised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_empty: ContextVar[bool] = ContextVar("_empty", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Networks that are built in here have parameters on the meta device. Their buffers have values, unlike there."""
    from accelerate import init_empty_weights

    token = _empty.set(True)
    try:
        with init_empty_weights(include_buffers=False):
            yield
    finally:
        _empty.reset(token)


def on_meta() -> bool:
    """Whether networks get no weights: in `with torch.device("meta")` and in `without_weights()`."""
    return _empty.get() or torch.get_default_device().type == "meta"
