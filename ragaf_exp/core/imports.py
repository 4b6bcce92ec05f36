"""Imports of the heavy libraries in less time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stub_optional_imports() -> Iterator[None]:
    """In here import what brings PyTorch and diffusers with it.

    Modules are no garbage, but so many objects that looking through them again and again takes a fifth of the time. And
    bitsandbytes is hidden: diffusers and peft import it wherever it is installed, and with it PyTorch's compiler, to load
    quantised weights, which nothing here does. The 8-bit optimizer imports it by itself.
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
