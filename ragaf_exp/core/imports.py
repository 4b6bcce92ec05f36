"""Faster imports of the large libraries."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stub_optional_imports() -> Iterator[None]:
    """Speed up the imports in its body, for modules that import PyTorch and diffusers.

    Garbage collection is off, as scanning all the new objects takes a fifth of the time. bitsandbytes is hidden:
    diffusers and peft import it where it is installed, and with it PyTorch's compiler, to load quantised weights,
    which nothing here does. The 8-bit optimizer imports it separately.
    """
    hidden = "bitsandbytes" not in sys.modules
    if hidden:
        sys.modules["bitsandbytes"] = None
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        if hidden:
            del sys.modules["bitsandbytes"]
