"""A process's hold on one run: its folder, lock, status, signals and process group, and requeueing on SLURM."""

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
    """The run's folder, owned by this process and those that train with it until the block ends.

    The folder's status says how the block ended: failed, preempted or cancelled; done is for the block to say. A run
    that was finished before is neither locked nor changed. Raises UserError where another process runs it, and where
    a signal stopped it, after its job was requeued.
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
            raise UserError("memory.shard=true: needs several processes; see cluster.tasks, or torchrun, or leave it out")
        return RunFolder.create(cfg, lacks)
    except Interrupted as stop:  # no folder is there yet that could say it
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
        with suppress(OSError):  # on a full disk the status can't be written, and the error itself says more
            folder.status("preempted" if isinstance(error, KeyboardInterrupt) else "failed", error=str(error))
        raise


def _interrupted(folder: RunFolder, stop: Interrupted) -> None:
    """Write the status, release the run, and requeue its job where SLURM preempted it."""
    state, error = STOP.state(), "what started its process is gone" if STOP.orphaned else None
    requeues = _requeues(state)
    if requeues and (why := restarts.requeue_loop_reason(folder.path, folder.progressed)):
        folder.status("failed", error=why)
        raise UserError(why) from stop
    log.info("%s: %s: %s", folder.path, state, stop)
    folder.status(state, error=error)
    folder.release()
    if not isinstance(stop, Stopped):  # agreed on at a step's end
        launch.destroy_process_group()
    if requeues:
        STOP.requeue()
    raise UserError(f"{folder.path}: {stop}; the same command continues") from stop


def _requeues(state: str) -> bool:
    """Whether this process is to requeue its job: of several that share a run, one does."""
    return bool(STOP.signal_name) and state == "preempted" and launch.is_main_process()
