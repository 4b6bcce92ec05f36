"""A run folder: runs/<name>/<hash of the config>, so that the same config finds its own run again."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ragaf_exp.config.compose import config_hash, load_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum, is_damaged, read_mapping, write_json
from ragaf_exp.core.safe_files import TEMPORARY, is_regular
from ragaf_exp.distributed import launch
from ragaf_exp.runs import metrics_jsonl, restarts, slurm
from ragaf_exp.runs.description import CONFIG, check_unedited, describe, is_described
from ragaf_exp.runs.followed import KEYS
from ragaf_exp.runs.lock import Lock
from ragaf_exp.runs.signals import STOP

log = logging.getLogger(__name__)
SCHEMA = 1
BEAT_S = 15.0  # between two heartbeats
STALE_S = 45.0  # a running state that was not updated for so long was left by a process that died
ENDING_S = 30.0  # so long a job waits for a process before it to end, as SLURM lets one of a requeued job


def place_of(cfg: DictConfig) -> Path:
    """Where the run of a config is, or will be."""
    return Path(cfg.runs).absolute() / cfg.name / config_hash(cfg)


class RunFolder:
    """The files of one run and their names."""

    def __init__(self, path: Path):
        self._given = path.absolute()
        self.path = path = self._given.resolve()  # links above it are the user's own; below it none is followed
        self.followed: set[str] = set()  # config keys that the command line repeats, of a run made elsewhere
        self.origin = path  # of the run; another where this folder holds its figures alone
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"
        self.metrics, self.curves = path / "metrics.json", path / "metrics.jsonl"
        self.tokenizer, self.report = path / "tokenizer.json", path / "report.html"
        self.is_main = True  # of the processes that share a run, the one that writes
        self.made: list[Path] = []  # folders that were made for a run that has not taken a step yet, the innermost first
        self._points = False  # whether runs/latest is yet to name this run
        self.progressed = False  # whether this process wrote something that the next start need not do again
        self._lock: Lock | None = None  # of a folder that this process runs
        self._writing = threading.Lock()  # of the status

    @classmethod
    def create(cls, cfg: DictConfig, lacks: Callable[[DictConfig, RunFolder], str] = lambda cfg, folder: "") -> RunFolder:
        """The folder of this config, made where it is new. A run that isn't done is this process's own from here on.

        Taken (a UserError) where another process runs it. Of several processes that share the run, one owns it and
        writes; the others read. lacks: names what a finished run has lost since, "" for nothing; it is made again.
        """
        folder = cls(place_of(cfg))
        folder.is_main = launch.is_main_process()
        folder.followed = set(KEYS)  # this config comes from the command line
        with launch.main_process_first():
            if folder.is_main:
                folder._create(cfg, lacks)
        return folder

    def _create(self, cfg: DictConfig, lacks: Callable[[DictConfig, RunFolder], str]) -> None:
        if not self.path.exists():
            self.made = [path for path in (self.path, *self.path.parents[:2]) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        self._points = True
        if self._has_checkpoint():
            self.saved()
        if self.done() and is_described(self.path, cfg) and not self._left() and not lacks(cfg, self):
            return
        self.take(ENDING_S if slurm.job_id() else 0.0)
        missing = lacks(cfg, self) if self.done() else ""
        describe(self.path, cfg)
        if self.done() and not missing:  # by the process that it waited for
            self.release()
        else:
            self._begin(missing)

    def _begin(self, missing: str) -> None:
        """Write the status, the last of the three files that make a run folder."""
        facts: dict[str, Any] = {"config": checksum(self.path / CONFIG)}
        if is_damaged(self.path / "status.json"):
            (self.path / "status.json").unlink(missing_ok=True)
            facts |= {"stage": None, "step": 0, "steps": None, "rate": None}
        if missing:
            log.warning("%s: %s; it is made again", self.path, missing)
            facts["trained"] = False
        self.status("running", **facts)

    @classmethod
    def read(cls, path: str | Path, finished: bool = True, edited: bool = False) -> tuple[RunFolder, DictConfig]:
        """An existing run, perhaps a stranger's, and its checked config.

        UserError where it is missing, from a newer schema or, with `finished`, not trained to the end; and where
        config.yaml was changed since the run began, unless it may be `edited`.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise UserError(f"{path}: no such run folder; runs/latest is the newest run")
        cfg = load_config(folder.path / CONFIG)
        state = folder.state
        if finished and not state.get("trained"):
            raise UserError(f"{path}: unfinished ({state.get('state')}); run its training command again to continue it")
        if not edited:
            check_unedited(folder.path, state, cfg)
        return folder, cfg

    def discard(self) -> bool:
        """Leave nothing of a run that was refused before its first step; False where there is something to keep."""
        if not self.made:
            return False
        with self._writing:  # no heartbeat comes between
            shutil.rmtree(self.path, ignore_errors=True)
        self.release()
        for parent in self.made[1:]:
            with suppress(OSError):  # another run's folder came to lie there meanwhile
                parent.rmdir()
        return True

    def saved(self) -> None:
        """A checkpoint of this run is there: runs/latest names it from the first on."""
        if self._points and self.is_main:
            self._points = False
            self._point_latest()

    def _has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("*/" + 8 * "[0-9]"))

    def status(self, state: str, **facts: Any) -> None:
        """state: running, done, failed, preempted, cancelled. Facts of earlier calls stay: stage, step, trained, error.

        UserError where another process took this folder over.
        """
        if not self.is_main:
            return
        self.own()
        with self._writing:
            known = self.state if is_regular(self.path / "status.json") else {}
            me = self._lock.me if self._lock else None
            who = {"job": me.job, "host": me.host, "pid": me.pid} if me else {}
            self._write_status({**known, **who, "state": state, "error": None, **facts})

    def _write_status(self, content: dict[str, Any]) -> None:
        told = {"schema": SCHEMA, **content, "updated": round(time.time(), 1)}
        write_json(self.path / "status.json", told)

    def own(self) -> None:
        """UserError where this process made the folder its own, and another has taken it over since."""
        if self._lock is not None and not self._lock.held():
            raise UserError(f"{self.path}: another process has taken this run over, as this one did not answer for long")

    def beat(self) -> None:
        """Show that this run is alive: its status is told again, with the time."""
        STOP.watch_parent()
        if self._lock is None or not self._lock.held():
            return
        self._lock.beat()
        with self._writing:
            if (known := self.state)["state"] == "running":
                self._write_status(known)

    def release(self) -> None:
        """Let another process run this config; the end of this process does the same."""
        if self._lock is not None:
            self._stop_beating.set()
            self._lock.release()
            self._lock = None

    def done(self) -> bool:
        return not is_damaged(self.path / "status.json") and self.state.get("state") == "done"

    @property
    def state(self) -> dict:
        return read_mapping(self.path / "status.json", SCHEMA)

    def mark_failed(self, why: str) -> None:
        """Fail a run that never came to be this process's own."""
        self.take(0.0)
        self.status("failed", error=why)
        self.release()

    def mark_progress(self) -> None:
        """Note that this process wrote something that a later start need not do again."""
        self.progressed = True

    def append(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if not self.is_main:
            return
        self.own()
        self.progressed = True
        metrics_jsonl.append(self.curves, line)

    def validated(self, stage: str, step: int) -> bool:
        """Whether metrics.jsonl has the validation of a step."""
        return metrics_jsonl.validated(self.curves, stage, step)

    def rewind(self, stage: str, step: int) -> None:
        """Drop lines of metrics.jsonl that training is about to write again: those of `stage` after `step`."""
        if self.is_main and is_regular(self.curves):
            metrics_jsonl.rewind(self.curves, stage, step)

    def take(self, wait: float) -> None:
        """One process per run: this one, from here on. Taken where another still lives after so many seconds."""
        lock = Lock(self.path)
        lock.take(wait)
        self._lock, self._stop_beating = lock, threading.Event()
        weakref.finalize(self, lock.release)
        weakref.finalize(self, self._stop_beating.set)
        threading.Thread(target=_beat, args=(weakref.ref(self), self._stop_beating), daemon=True).start()
        for left in self._left():
            left.unlink(missing_ok=True)

    def _left(self) -> list[Path]:
        """Files that a process left which was killed in a write."""
        return [path for path in self.path.rglob(".*.tmp") if TEMPORARY.fullmatch(path.name) and path.is_file()]

    def _point_latest(self) -> None:
        latest = self._given.parents[1] / "latest"
        temporary = latest.with_name(f".latest.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self._given.relative_to(latest.parent))
        os.replace(temporary, latest)


def requeue(cfg: DictConfig) -> None:
    """Queue a job again that was stopped before its run's folder was its own; UserError where that was in vain."""
    if why := restarts.requeue_loop_reason(place_of(cfg), progressed=False):
        with suppress(UserError):  # another process runs it, and says how it goes
            RunFolder(place_of(cfg)).mark_failed(why)
        raise UserError(why)
    STOP.requeue()


def is_stale(status: dict[str, Any], now: float | None = None) -> bool:
    """Whether a status says running, and nobody is left who would say otherwise. The clock may have been set back."""
    age = (time.time() if now is None else now) - status.get("updated", 0)
    return status.get("state") == "running" and abs(age) > STALE_S


def _beat(folder: weakref.ref[RunFolder], stop: threading.Event) -> None:
    """In a thread of its own, until the run ends."""
    while not stop.wait(BEAT_S):
        alive = folder()
        if alive is None:
            return
        with suppress(OSError, UserError):  # a full disk now: the next beat tries again, the run itself will say
            alive.beat()
        del alive
