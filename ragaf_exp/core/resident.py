"""Gives memory back to the system: freed blocks, and pages of weight files that were mapped and read."""

from __future__ import annotations

import ctypes
import gc
import mmap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

WEIGHTS = ".safetensors"
MAPS = Path("/proc/self/smaps")  # only Linux has it


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
    if not MAPS.exists():
        return
    for begin, end in unchanged_mappings(MAPS.read_text()):
        _library().madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def unchanged_mappings(maps: str) -> Iterator[tuple[int, int]]:
    """Yield begin and end of mapped weight files in which no page was written to.

    A page that was written to is the process's own copy, and would lose its values.

    Args:
        maps: Content of /proc/self/smaps: for each mapping a line of its addresses and its file, and lines such as
            "Anonymous: 0 kB", the memory of pages that were written to.
    """
    span: tuple[int, int] | None = None
    for line in maps.splitlines():
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):
            begin, end = (int(address, 16) for address in first.split("-"))
            span = (begin, end) if line.endswith(WEIGHTS) else None
        elif first == "Anonymous:" and span and rest[0] == "0":
            yield span


@cache
def _library() -> Any:
    return ctypes.CDLL(None)
