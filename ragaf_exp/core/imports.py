"""Faster imports of the large libraries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ragaf_exp.core.garbage import collection_paused


@contextmanager
def stub_optional_imports() -> Iterator[None]:
    """Speed up the imports in its body, for modules that import PyTorch and diffusers.

    Garbage collection is paused. bitsandbytes is hidden: diffusers and peft import it where it is installed, and with
    it PyTorch's compiler, to load quantised weights, which nothing here does. The 8-bit optimizer imports it separately.
    """
    hidden = "bitsandbytes" not in sys.modules
    if hidden:
        sys.modules["bitsandbytes"] = None
    try:
        with collection_paused():
            yield
    finally:
        if hidden:
            del sys.modules["bitsandbytes"]
