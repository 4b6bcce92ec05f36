"""A run folder: runs/<name>/<hash of the config>, so that the same config finds its own run again."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp import origin
from ragaf_exp.config.compose import config_hash, load_config
from ragaf_exp.config.followed import KEYS
from ragaf_exp.environment import environment
from ragaf_exp.errors import UserError
from ragaf_exp.files import read_mapping, write_json, write_text
from ragaf_exp.jobs import processes, slurm, starts
from ragaf_exp.jobs.lock import Lock
from ragaf_exp.jobs.stop import STOP
from ragaf_exp.safe_files import LOG, TEMPORARY, is_regular, open_append, read_bounded

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
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"
        self.metrics, self.curves = path / "metrics.json", path / "metrics.jsonl"
        self.tokenizer, self.report = path / "tokenizer.json", path / "report.html"
        self.leads = True  # of the processes that share a run, the one that writes
        self._lock: Lock | None = None  # of a folder that this process runs
        self._writing = threading.Lock()  # of the status

    @classmethod
    def create(cls, cfg: DictConfig) -> RunFolder:
        """The folder of this config, made where it is new. A run that isn't done is this process's own from here on.

        Taken (a UserError) where another process runs it. Of several processes that share the run, one owns it and
        writes; the others read.
        """
        folder = cls(place_of(cfg))
        folder.leads = processes.leads()
        folder.followed = set(KEYS)  # this config comes from the command line
        with processes.leader_first():
            if folder.leads:
                folder._create(cfg)
        return folder

    def _create(self, cfg: DictConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._point_latest()
        if self.done() and not self._left():
            return
        self.take(ENDING_S if slurm.job_id() else 0.0)
        if self.done():  # by the process that it waited for
            self.release()
            return
        if not is_regular(self.path / "status.json"):  # the last of the three to be written
            write_text(self.path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
            origin.sign(self.path)
            write_json(self.path / "environment.json", environment())
            self.status("running", stage=None, step=0, steps=None, rate=None)

    @classmethod
    def read(cls, path: str | Path, finished: bool = True) -> tuple[RunFolder, DictConfig]:
        """An existing run, perhaps a stranger's, and its checked config.

        UserError where it is missing, from a newer schema or, with `finished`, not trained to the end.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise UserError(f"{path}: no such run folder; runs/latest is the newest run")
        cfg = load_config(folder.path / "config.yaml")
        state = folder.state
        if finished and not state.get("trained"):
            raise UserError(f"{path}: unfinished ({state.get('state')}); run its training command again to continue it")
        return folder, cfg

    def status(self, state: str, **facts: Any) -> None:
        """state: running, done, failed, preempted, cancelled. Facts of earlier calls stay: stage, step, trained, error.

        UserError where another process took this folder over.
        """
        if not self.leads:
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
        return is_regular(self.path / "status.json") and self.state.get("state") == "done"

    @property
    def state(self) -> dict:
        return read_mapping(self.path / "status.json", SCHEMA)

    def give_up(self, why: str) -> None:
        """Fail a run that never came to be this process's own."""
        self.take(0.0)
        self.status("failed", error=why)
        self.release()

    def append(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        if not self.leads:
            return
        self.own()
        starts.keeps()
        with open_append(self.curves) as file:
            file.write((json.dumps(line) + "\n").encode())

    def validated(self, stage: str, step: int) -> bool:
        """Whether metrics.jsonl has the validation of a step."""
        lines = self._lines()
        rows = (json.loads(line) for line in lines if line.endswith("\n") and '"validation"' in line)
        return any(row["stage"] == stage and row["step"] == step for row in rows)

    def rewind(self, stage: str, step: int) -> None:
        """Drop lines of metrics.jsonl that training is about to write again: those of `stage` after `step`."""
        if not self.leads or not self.curves.exists():
            return
        kept = []
        for line in self._lines():
            if not line.endswith("\n"):  # cut short by a kill
                continue
            row = json.loads(line)
            if row["stage"] != stage or row["step"] <= step:
                kept.append(line)
        write_text(self.curves, "".join(kept))

    def _lines(self) -> list[str]:
        """Of metrics.jsonl, with their ends."""
        if not is_regular(self.curves):
            return []
        return read_bounded(self.curves, LOG).decode(errors="replace").splitlines(keepends=True)

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


def hand_on(cfg: DictConfig) -> None:
    """Queue a job again that was stopped before its run's folder was its own; UserError where that was in vain."""
    if why := starts.in_vain(place_of(cfg)):
        with suppress(UserError):  # another process runs it, and says how it goes
            RunFolder(place_of(cfg)).give_up(why)
        raise UserError(why)
    STOP.hand_on()


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
