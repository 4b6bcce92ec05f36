"""Repeats a step that ran out of memory with smaller micro-batches, and uses these for later steps as well."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ragaf_exp.compute.out_of_memory import ADVICE, T, _line, free, is_out_of_memory
from ragaf_exp.core.errors import OutOfMemory
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)


def held(device: torch.device) -> dict[str, float]:
    """Peak memory in GiB of this process on a CUDA device since the last call; empty on a CPU."""
    if device.type != "cuda":
        return {}
    peaks = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"memory_allocated": round(peaks[0] / 2**30, 3), "memory_reserved": round(peaks[1] / 2**30, 3)}


class OomRetry:
    """Repeats a training step that ran out of memory, with half the micro-batch and twice the accumulation.

    The smaller micro-batch applies to later steps and to a resumed run. status.json records the step of the change, so
    that a run resumed from an earlier step splits its batches exactly like an uninterrupted run.

    Args:
        folder: The run folder.
        stage: Name of the stage.
        accumulate: Initial number of micro-batches per step.
        processes: Number of processes that train together.
        changed: Returns tensors that a step changes in place. If one of them has changed, the step cannot be repeated.
        in_pieces: Whether gradients can be accumulated. They cannot if the backward pass updates the weights.
    """

    def __init__(
        self, folder: RunFolder, stage: str, accumulate: int, processes: int, changed: Callable[[], Iterable[Tensor]],
        in_pieces: bool = True,
    ):  # fmt: skip
        self.folder, self.stage, self.accumulate, self.processes = folder, stage, accumulate, processes
        self.changed, self.in_pieces = changed, in_pieces
        self.oom_events: list[dict] = []

    def restore(self) -> None:
        """Load the out-of-memory events of earlier processes of this run."""
        self.oom_events = [r for r in self.folder.state.get("retreats", ()) if r["stage"] == self.stage]

    def pieces(self, step: int, kind: str) -> int:
        """Number of micro-batches of a step. kind: the kind of step, since kinds differ in memory."""
        counts = [r["accumulate"] for r in self.oom_events if r["kind"] == kind and r["step"] <= step]
        return max([self.accumulate, *counts])

    def run(self, step: int, kind: str, items: int, attempt: Callable[[int], T]) -> T:
        """Call `attempt` with smaller and smaller micro-batches until it fits into memory.

        Args:
            step: The optimizer step, counted from 0.
            kind: The kind of step, `whole` or `regions`.
            items: Number of items of the step.
            attempt: Called with the size of a micro-batch.

        Returns:
            The result of `attempt`.

        Raises:
            OutOfMemory: The step cannot be split further, or cannot be repeated.
        """
        while True:
            size = math.ceil(items / min(self.pieces(step, kind), items))
            before = self._versions(self.changed)
            try:
                return attempt(size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = _line(error)
            free()  # outside the except clause, whose traceback references the tensors of the failed attempt
            self._halve(step, kind, items, size, reason, before)

    def retry(self, step: int, update: Callable[[], None], changed: Callable[[], Iterable[Tensor]]) -> None:
        """Run an update that cannot be split, and repeat it once if it ran out of memory before any change.

        Args:
            step: The optimizer step, counted from 0.
            update: The update.
            changed: Returns the tensors that the update changes in place.

        Raises:
            OutOfMemory: The second attempt failed too, or the first one had changed a tensor.
        """
        before = self._versions(changed)
        try:
            return update()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = _line(error)
        free()
        if self._versions(changed) != before:
            raise OutOfMemory(self._half_updated(step, reason))
        try:
            update()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(self._half_updated(step, reason)) from error
            raise

    def _half_updated(self, step: int, reason: str) -> str:
        return (f"{self._prefix(step)} in the middle of an update ({reason}); the newest checkpoint is intact and the same "
                "command continues from it; reduce its memory, for example by a larger stage.accumulate")  # fmt: skip

    def _prefix(self, step: int) -> str:
        return f"stage {self.stage}, step {step + 1}: out of memory"

    def _halve(self, step: int, kind: str, items: int, size: int, reason: str, before: list[int]) -> None:
        prefix = self._prefix(step)
        if self._versions(self.changed) != before:
            raise OutOfMemory(self._half_updated(step, reason))
        if self.processes > 1:
            raise OutOfMemory(f"{prefix} in one of {self.processes} processes ({reason}), which can't repeat a step alone")
        if not self.in_pieces:
            raise OutOfMemory(f"{prefix} ({reason}); memory.step_in_backward=true can't accumulate gradients; set it to "
                              f"false, or reduce stage.batch; {ADVICE}")  # fmt: skip
        if size == 1:
            raise OutOfMemory(f"{prefix} with one item at a time ({reason}); {ADVICE}")
        smaller = math.ceil(size / 2)
        pieces = math.ceil(items / smaller)
        log.warning("%s with %d items at a time; repeating it with %d, accumulated %d times", prefix, size, smaller, pieces)
        self.oom_events.append({"stage": self.stage, "kind": kind, "step": step, "accumulate": pieces, "reason": reason})
        others = [r for r in self.folder.state.get("retreats", ()) if r["stage"] != self.stage]
        self.folder.status("running", retreats=[*others, *self.oom_events])

    @staticmethod
    def _versions(changed: Callable[[], Iterable[Tensor]]) -> list[int]:
        """Versions of the tensors; PyTorch counts the in-place changes of each."""
        return [tensor._version for tensor in changed()]
