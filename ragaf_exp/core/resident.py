"""Gives memory back to the system: freed blocks, and pages of weight files that were mapped and read."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = ".safetensors"
MAPS, PAGES = Path("/proc/self/maps"), Path("/proc/self/pagemap")  # only Linux has them
ENTRY = 8  # bytes of a page in PAGES
OF_FILE, PRESENT, SWAPPED = (np.uint64(1 << bit) for bit in (61, 63, 62))


@contextmanager
def new_objects_only() -> Iterator[None]:
    """Let garbage collections in here pass over the objects of now: those of modules are most of a collection's time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def release() -> None:
    """Give back all memory that is not used now."""
    gc.collect()  # networks refer to themselves through their hooks
    trim_heap()
    drop_pages()


def trim_heap() -> None:
    """Give back freed blocks: glibc keeps those of a few megabytes. Elsewhere nothing happens."""
    if hasattr(_library(), "malloc_trim"):
        _library().malloc_trim(0)


def drop_pages() -> None:
    """Drop the pages of mapped weight files, which stay in memory once they were read. Only on Linux.

    Tensors keep their values: pages are read again from the file when they are used.
    """
    if not PAGES.exists():
        return
    with PAGES.open("rb") as pages:
        for begin, end in weight_mappings(MAPS.read_text()):
            if not _is_written(pages.fileno(), begin, end):
                _library().madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def weight_mappings(maps: str) -> Iterator[tuple[int, int]]:
    """Yield begin and end of mapped weight files. maps: content of /proc/self/maps."""
    for line in maps.splitlines():
        if line.endswith(WEIGHTS):
            begin, end = line.split(maxsplit=1)[0].split("-")
            yield int(begin, 16), int(end, 16)


def _is_written(pages: int, begin: int, end: int) -> bool:
    """Whether a page of a mapping was written to: it is the process's own copy, and would lose its values.

    Args:
        pages: Descriptor of /proc/self/pagemap.
        begin: First address.
        end: Address behind the last.
    """
    first, last = begin // mmap.PAGESIZE, end // mmap.PAGESIZE
    entries = np.frombuffer(os.pread(pages, ENTRY * (last - first), ENTRY * first), np.uint64)
    copied = (entries & PRESENT != 0) & (entries & OF_FILE == 0) | (entries & SWAPPED != 0)
    return bool(copied.any())


@cache
def _library() -> Any:
    return ctypes.CDLL(None)
