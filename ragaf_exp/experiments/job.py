"""Runs a job: owns the run folder, its lock and status, signals, the process group, and requeueing on SLURM."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omegaconf import DictConfig

from ragaf_exp.core.errors import UserError
from ragaf_exp.distributed import launch
from ragaf_exp.experiments.finished import lacks
from ragaf_exp.runs import restarts
from ragaf_exp.runs.folder import RunFolder, requeue
from ragaf_exp.runs.signals import STOP, Interrupted, Stopped

log = logging.getLogger(__name__)


@contextmanager
def job(cfg: DictConfig) -> Iterator[RunFolder]:
    """Own the run folder until the block ends, together with the processes of the same job.

    If the block fails or is interrupted, the status becomes failed, preempted or cancelled; the block itself sets done. A
    finished run is neither locked nor changed. Raises UserError if another process runs it, or a signal stopped it, after
    its job was requeued.
    """
    with STOP.listening():
        folder = _acquire(cfg)
        if folder.done():
            yield folder
            return
        try:
            with _status_of_the_end(folder):
                folder.status("running")
                yield folder
                launch.barrier()
                launch.destroy_process_group()
        finally:
            folder.release()


def _acquire(cfg: DictConfig) -> RunFolder:
    try:
        launch.init_process_group(Path(cfg.runs).absolute(), cfg.memory.device)
        if cfg.memory.shard and not launch.is_distributed():
            raise UserError("memory.shard=true: needs several processes; use cluster.tasks or torchrun, or leave it out")
        return RunFolder.create(cfg, lacks)
    except Interrupted as stop:  # there is no folder yet to record it
        if _requeues(STOP.state()):
            requeue(cfg)
        raise UserError(f"{cfg.runs}: {stop} while it started; the same command continues") from stop


@contextmanager
def _status_of_the_end(folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except Interrupted as stop:
        _interrupted(folder, stop)
    except BaseException as error:
        STOP.ending = True
        if isinstance(error, UserError) and folder.discard():  # refused before the first step
            raise
        with suppress(OSError):  # on a full disk the status cannot be written; the error itself matters more
            folder.status("preempted" if isinstance(error, KeyboardInterrupt) else "failed", error=str(error))
        raise


def _interrupted(folder: RunFolder, stop: Interrupted) -> None:
    """Write the status, release the run, and requeue its job where SLURM preempted it."""
    state, error = STOP.state(), "its parent process has ended" if STOP.orphaned else None
    requeues = _requeues(state)
    if requeues and (reason := restarts.requeue_loop_reason(folder.path, folder.progressed)):
        folder.status("failed", error=reason)
        raise UserError(reason) from stop
    log.info("%s: %s: %s", folder.path, state, stop)
    folder.status(state, error=error)
    folder.release()
    if not isinstance(stop, Stopped):  # processes agree on a stop at the end of a step
        launch.destroy_process_group()
    if requeues:
        STOP.requeue()
    raise UserError(f"{folder.path}: {stop}; the same command continues") from stop


def _requeues(state: str) -> bool:
    """Whether this process must requeue its job: only the main process of a run does."""
    return bool(STOP.signal_name) and state == "preempted" and launch.is_main_process()
