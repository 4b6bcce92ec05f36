"""A run folder, runs/<name>/<hash of the config>, so that the same config continues its own run."""

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
STALE_S = 45.0  # age of a running state after which its process counts as dead
ENDING_S = 30.0  # time that a job waits for an earlier process to end, as SLURM may requeue a job before it has


def run_path(cfg: DictConfig) -> Path:
    """Path of a config's run, whether or not it exists."""
    return Path(cfg.runs).absolute() / cfg.name / config_hash(cfg)


class RunFolder:
    """The files of one run and their names."""

    def __init__(self, path: Path):
        self._given = path.absolute()
        self.path = path = self._given.resolve()  # links above it are the user's; below it none is followed
        self.followed: set[str] = set()  # config keys that the command line repeats, for a run made elsewhere
        self.origin = path  # the run's own folder, which differs where this folder holds only its metrics
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"
        self.metrics, self.curves = path / "metrics.json", path / "metrics.jsonl"
        self.tokenizer, self.report = path / "tokenizer.json", path / "report.html"
        self.is_main = True  # whether this process writes, among those that share the run
        self.made: list[Path] = []  # folders created for a run before its first step, innermost first
        self._update_latest = False  # whether runs/latest is still to be pointed at this run
        self.progressed = False  # whether this process wrote something that the next start need not repeat
        self._lock: Lock | None = None  # held while this process runs the folder
        self._writing = threading.Lock()  # guards status.json

    @classmethod
    def create(cls, cfg: DictConfig, lacks: Callable[[DictConfig, RunFolder], str] = lambda cfg, folder: "") -> RunFolder:
        """Create or reopen the folder of a config. A run that isn't done is locked by this process.

        Of several processes that share the run, the main one holds the lock and writes; the others read.

        Args:
            cfg: The run's checked config.
            lacks: (config, folder) -> name of what a finished run has lost since, "" for nothing; it is made again.

        Raises:
            LockHeld: Another process runs this config.
        """
        folder = cls(run_path(cfg))
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
        self._update_latest = True
        if self._has_checkpoint():
            self.saved()
        if self.done() and is_described(self.path, cfg) and not self._leftovers() and not lacks(cfg, self):
            return
        self.acquire(ENDING_S if slurm.job_id() else 0.0)
        missing = lacks(cfg, self) if self.done() else ""
        describe(self.path, cfg)
        if self.done() and not missing:  # finished by the process that held the lock
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
        """Open an existing run, which may be untrusted.

        Args:
            path: The run folder.
            finished: Require that it is trained to the end.
            edited: Accept a config.yaml that was changed since the run began.

        Returns:
            The folder and its checked config.

        Raises:
            UserError: The run is missing, from a newer schema, unfinished or edited.
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
        """Remove a new run that was refused before its first step; False if the folder existed before."""
        if not self.made:
            return False
        with self._writing:  # blocks the heartbeat
            shutil.rmtree(self.path, ignore_errors=True)
        self.release()
        for parent in self.made[1:]:
            with suppress(OSError):  # another run was created there meanwhile
                parent.rmdir()
        return True

    def saved(self) -> None:
        """Point runs/latest at this run once it has a checkpoint."""
        if self._update_latest and self.is_main:
            self._update_latest = False
            self._point_latest()

    def _has_checkpoint(self) -> bool:
        return any(self.checkpoints.glob("*/" + 8 * "[0-9]"))

    def status(self, state: str, **facts: Any) -> None:
        """Update status.json.

        Args:
            state: running, done, failed, preempted or cancelled.
            **facts: Values to set, such as stage, step, trained, error; those of earlier calls remain.

        Raises:
            UserError: Another process has taken this folder over.
        """
        if not self.is_main:
            return
        self.check_owned()
        with self._writing:
            known = self.state if is_regular(self.path / "status.json") else {}
            me = self._lock.me if self._lock else None
            process = {"job": me.job, "host": me.host, "pid": me.pid} if me else {}
            self._write_status({**known, **process, "state": state, "error": None, **facts})

    def _write_status(self, content: dict[str, Any]) -> None:
        status = {"schema": SCHEMA, **content, "updated": round(time.time(), 1)}
        write_json(self.path / "status.json", status)

    def check_owned(self) -> None:
        """Raise UserError if this process held the folder's lock and another has taken it over since."""
        if self._lock is not None and not self._lock.is_held():
            raise UserError(f"{self.path}: another process has taken this run over, as this one was unresponsive for long")

    def beat(self) -> None:
        """Show that this run is alive: refresh the lock's heartbeat and the status's time."""
        STOP.watch_parent()
        if self._lock is None or not self._lock.is_held():
            return
        self._lock.beat()
        with self._writing:
            if (known := self.state)["state"] == "running":
                self._write_status(known)

    def release(self) -> None:
        """Release the lock, so that another process can run this config; the end of this process does the same."""
        if self._lock is not None:
            self._stop_beating.set()
            self._lock.release()
            self._lock = None

    def done(self) -> bool:
        """Whether the run is trained, evaluated and reported."""
        return not is_damaged(self.path / "status.json") and self.state.get("state") == "done"

    @property
    def state(self) -> dict:
        """Content of status.json."""
        return read_mapping(self.path / "status.json", SCHEMA)

    def mark_failed(self, why: str) -> None:
        """Mark a run as failed that this process has not locked yet."""
        self.acquire(0.0)
        self.status("failed", error=why)
        self.release()

    def mark_progress(self) -> None:
        """Record that this process wrote something that a later start need not repeat."""
        self.progressed = True

    def append(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        if not self.is_main:
            return
        self.check_owned()
        self.progressed = True
        metrics_jsonl.append(self.curves, line)

    def validated(self, stage: str, step: int) -> bool:
        """Whether metrics.jsonl contains the validation of a step."""
        return metrics_jsonl.validated(self.curves, stage, step)

    def rewind(self, stage: str, step: int) -> None:
        """Drop the lines of metrics.jsonl of `stage` after `step`, which training is about to write again."""
        if self.is_main and is_regular(self.curves):
            metrics_jsonl.rewind(self.curves, stage, step)

    def acquire(self, wait: float) -> None:
        """Lock the run for this process, and start the heartbeat. Raises LockHeld if it is still locked after `wait` s."""
        lock = Lock(self.path)
        lock.acquire(wait)
        self._lock, self._stop_beating = lock, threading.Event()
        weakref.finalize(self, lock.release)
        weakref.finalize(self, self._stop_beating.set)
        threading.Thread(target=_beat, args=(weakref.ref(self), self._stop_beating), daemon=True).start()
        for leftover in self._leftovers():
            leftover.unlink(missing_ok=True)

    def _leftovers(self) -> list[Path]:
        """List temporary files of a process that was killed while writing."""
        return [path for path in self.path.rglob(".*.tmp") if TEMPORARY.fullmatch(path.name) and path.is_file()]

    def _point_latest(self) -> None:
        latest = self._given.parents[1] / "latest"
        temporary = latest.with_name(f".latest.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self._given.relative_to(latest.parent))
        os.replace(temporary, latest)


def requeue(cfg: DictConfig) -> None:
    """Requeue a SLURM job that was preempted before it locked the run folder. Raises UserError if that is futile."""
    if why := restarts.requeue_loop_reason(run_path(cfg), progressed=False):
        with suppress(UserError):  # another process runs it and updates the status
            RunFolder(run_path(cfg)).mark_failed(why)
        raise UserError(why)
    STOP.requeue()


def is_stale(status: dict[str, Any], now: float | None = None) -> bool:
    """Whether a status says running but is no longer updated. The clock may have been set back."""
    age = (time.time() if now is None else now) - status.get("updated", 0)
    return status.get("state") == "running" and abs(age) > STALE_S


def _beat(folder: weakref.ref[RunFolder], stop: threading.Event) -> None:
    """Send heartbeats until the run ends; the target of a separate thread."""
    while not stop.wait(BEAT_S):
        alive = folder()
        if alive is None:
            return
        with suppress(OSError, UserError):  # such as a full disk: the next beat tries again, and the run itself reports it
            alive.beat()
        del alive
