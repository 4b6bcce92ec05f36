"""Detection of out-of-memory errors, and a map over items in chunks that shrink when one occurs."""

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


CPU_MESSAGES = ("not enough memory", "can't allocate memory", "Cannot allocate memory")  # of PyTorch's RuntimeError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory; PyTorch has no separate exception for host memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in CPU_MESSAGES)


def free() -> None:
    """Release unused memory to the device, which reduces fragmentation for the next allocations."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Chunks:
    """The number of items processed at once where no gradient is needed; halved for good when memory runs out."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size  # None: all items at once

    def over(self, items: int, call: Callable[[slice], T], what: str = "sampling") -> list[T]:
        """Call a function on all items, chunk by chunk.

        Args:
            items: Number of items.
            call: Computes one chunk, given its rows.
            what: Name of the work, for messages.

        Returns:
            The chunks' results, in order.

        Raises:
            OutOfMemory: Not even one item fits.
        """
        results: list[T] = []
        begin = 0
        while begin < items:
            size = min(self.size or items, items - begin)
            try:
                results.append(call(slice(begin, begin + size)))
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
            log.warning("%s: out of memory with %d items at once; continuing with %d", what, size, self.size)
        return results


def _line(error: BaseException) -> str:
    """Shorten an error's message to its first sentence: PyTorch's are a paragraph long."""
    return str(error).partition("\n")[0].partition(". ")[0].strip() or type(error).__name__
