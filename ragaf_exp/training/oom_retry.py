"""Out of memory: what was being done is done again in smaller pieces, and later work is cut as small at once."""

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
    """GiB that this process has held at most on a CUDA device since the last call; nothing on processors."""
    if device.type != "cuda":
        return {}
    peaks = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {"memory_allocated": round(peaks[0] / 2**30, 3), "memory_reserved": round(peaks[1] / 2**30, 3)}


class OomRetry:
    """Redoes a training step that ran out of memory, with half the micro-batch and twice the accumulation.

    What is found stays for later steps, and for a resumed run: status.json holds the step from which on it held, so
    that a run resumed from before that step cuts its batches as the undisturbed run did.
    accumulate: micro-batches per step to begin with. processes: that train together.
    changed: tensors that a step which can be redone has not yet changed in place.
    in_pieces: whether a step may be taken in several; not where each piece changes the weights.
    """

    def __init__(
        self, folder: RunFolder, stage: str, accumulate: int, processes: int, changed: Callable[[], Iterable[Tensor]],
        in_pieces: bool = True,
    ):  # fmt: skip
        self.folder, self.stage, self.accumulate, self.processes = folder, stage, accumulate, processes
        self.changed, self.in_pieces = changed, in_pieces
        self.oom_events: list[dict] = []

    def restore(self) -> None:
        """Go on from what earlier processes of this run found."""
        self.oom_events = [r for r in self.folder.state.get("retreats", ()) if r["stage"] == self.stage]

    def pieces(self, step: int, kind: str) -> int:
        """Micro-batches of a step. kind: of work; what one kind can't hold, another may."""
        held = [r["accumulate"] for r in self.oom_events if r["kind"] == kind and r["step"] <= step]
        return max([self.accumulate, *held])

    def run(self, step: int, kind: str, items: int, attempt: Callable[[int], T]) -> T:
        """attempt(micro-batch size), again and smaller until it fits. OutOfMemory where nothing smaller is left."""
        while True:
            size = math.ceil(items / min(self.pieces(step, kind), items))
            before = self._versions(self.changed)
            try:
                return attempt(size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = _line(error)
            free()  # outside the except clause, which holds the failed attempt's tensors
            self._halve(step, kind, items, size, reason, before)

    def retry(self, step: int, update: Callable[[], None], changed: Callable[[], Iterable[Tensor]]) -> None:
        """An update that has no smaller form: once more, where it had changed nothing."""
        before = self._versions(changed)
        try:
            return update()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = _line(error)
        free()
        if self._versions(changed) != before:
            raise OutOfMemory(self._check_unchanged(step, reason))
        try:
            update()
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(self._check_unchanged(step, reason)) from error
            raise

    def _check_unchanged(self, step: int, reason: str) -> str:
        return (f"{self._place(step)} in the middle of an update ({reason}); the newest checkpoint is whole and the same "
                "command continues from it; give it more room, as by a larger stage.accumulate")  # fmt: skip

    def _place(self, step: int) -> str:
        return f"stage {self.stage}, step {step + 1}: out of memory"

    def _halve(self, step: int, kind: str, items: int, size: int, reason: str, before: list[int]) -> None:
        place = self._place(step)
        if self._versions(self.changed) != before:
            raise OutOfMemory(self._check_unchanged(step, reason))
        if self.processes > 1:
            raise OutOfMemory(f"{place} in one of {self.processes} processes ({reason}), which can't redo a step alone")
        if not self.in_pieces:
            raise OutOfMemory(f"{place} ({reason}); memory.step_in_backward=true takes no step in pieces; set it to "
                              f"false, or a smaller stage.batch; {ADVICE}")  # fmt: skip
        if size == 1:
            raise OutOfMemory(f"{place} with one item at a time ({reason}); {ADVICE}")
        smaller = math.ceil(size / 2)
        pieces = math.ceil(items / smaller)
        log.warning("%s with %d items at a time; redoing it with %d, accumulated %d times", place, size, smaller, pieces)
        self.oom_events.append({"stage": self.stage, "kind": kind, "step": step, "accumulate": pieces, "reason": reason})
        others = [r for r in self.folder.state.get("retreats", ()) if r["stage"] != self.stage]
        self.folder.status("running", retreats=[*others, *self.oom_events])

    @staticmethod
    def _versions(changed: Callable[[], Iterable[Tensor]]) -> list[int]:
        """PyTorch counts the changes in place of every tensor."""
        return [tensor._version for tensor in changed()]
