"""Recognises out-of-memory errors, and maps a function over items in chunks that shrink on one."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from typing import TypeVar

import torch

from ragaf_exp.core.errors import OutOfMemory

log = logging.getLogger(__name__)

T = TypeVar("T")


ADVICE = "python -m ragaf_exp.plan with the same options and a memory.budget says what would make it fit"


PROCESSOR = ("not enough memory", "can't allocate memory", "Cannot allocate memory")  # what PyTorch says on processors


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left; PyTorch has no exception of its own for the host's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in PROCESSOR)


def free() -> None:
    """Give back what is no longer used, so that the pieces that are asked for next find whole blocks."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Chunks:
    """How many items are taken at once where no gradient is needed; halves when memory runs out, and stays so."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size  # None: as many as are given

    def over(self, items: int, call: Callable[[slice], T], what: str = "sampling") -> list[T]:
        """call(rows) for all items, in order. OutOfMemory where not even one item fits."""
        found: list[T] = []
        begin = 0
        while begin < items:
            size = min(self.size or items, items - begin)
            try:
                found.append(call(slice(begin, begin + size)))
                begin += size
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = _line(error)
            free()  # outside the except clause, which holds the failed call's tensors
            if size == 1:
                raise OutOfMemory(f"{what}: out of memory with one item at a time ({reason}); {ADVICE}")
            self.size = math.ceil(size / 2)
            log.warning("%s: out of memory with %d items at once; going on with %d", what, size, self.size)
        return found


def _line(error: BaseException) -> str:
    """An error's first sentence: PyTorch's go on for a paragraph."""
    return str(error).partition("\n")[0].partition(". ")[0].strip() or type(error).__name__
