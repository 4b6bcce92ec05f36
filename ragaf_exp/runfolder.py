"""A run folder: runs/<name>/<hash of the config>, so that the same config finds its own run again."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import config_hash, load_config
from ragaf_exp.errors import UserError
from ragaf_exp.files import read_mapping, write_json, write_text

log = logging.getLogger(__name__)
SCHEMA = 1
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "hydra-core", "numpy", "opencv-python-headless")


class RunFolder:
    """The files of one run and their names."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints, self.samples = path / "checkpoints", path / "samples"
        self.metrics, self.curves = path / "metrics.json", path / "metrics.jsonl"
        self.tokenizer, self.report = path / "tokenizer.json", path / "report.html"

    @classmethod
    def create(cls, cfg: DictConfig) -> RunFolder:
        """The folder of this config, made where it is new, locked against a second process."""
        folder = cls(Path(cfg.runs).absolute() / cfg.name / config_hash(cfg))
        folder.path.mkdir(parents=True, exist_ok=True)
        folder._lock()
        if not (folder.path / "status.json").exists():  # the last of the three to be written
            write_text(folder.path / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
            write_json(folder.path / "environment.json", environment())
            folder.status("running")
        folder._point_latest()
        return folder

    @classmethod
    def read(cls, path: str | Path, finished: bool = True) -> tuple[RunFolder, DictConfig]:
        """An existing run, perhaps a stranger's, and its checked config.

        UserError where it is missing, from a newer schema or, with `finished`, not trained to the end.
        """
        folder = cls(Path(path).absolute().resolve())
        if not folder.path.is_dir():
            raise UserError(f"{path}: no such run folder; runs/latest is the newest run")
        cfg = load_config(folder.path / "config.yaml")
        state = folder.state
        if finished and not state.get("trained"):
            raise UserError(f"{path}: unfinished ({state.get('state')}); run its training command again to continue it")
        return folder, cfg

    def status(self, state: str, **facts: Any) -> None:
        """state: running, done, failed, preempted. Facts of earlier calls stay: stage, step, trained, error."""
        known = self.state if (self.path / "status.json").exists() else {}
        facts = {"error": None, **facts}
        write_json(self.path / "status.json",
                   {"schema": SCHEMA, **known, "state": state, "updated": round(time.time(), 1), **facts})  # fmt: skip

    @property
    def state(self) -> dict:
        return read_mapping(self.path / "status.json", SCHEMA)

    def append(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        with open(self.curves, "a") as file:
            file.write(json.dumps(line) + "\n")

    def rewind(self, stage: str, step: int) -> None:
        """Drop lines of metrics.jsonl that training is about to write again: those of `stage` after `step`."""
        if not self.curves.exists():
            return
        kept = []
        for line in self.curves.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):  # cut short by a kill
                continue
            row = json.loads(line)
            if row["stage"] != stage or row["step"] <= step:
                kept.append(line)
        write_text(self.curves, "".join(kept))

    def _lock(self) -> None:
        """One process per run: the lock goes with the process, however it ends."""
        self._lock_file = open(self.path / ".lock", "a")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{self.path}: another process is running this very config; wait for it") from error
        for left in self.path.rglob(".*.tmp"):  # by a process that was killed in a write
            if left.is_file():
                left.unlink(missing_ok=True)

    def _point_latest(self) -> None:
        latest = self.path.parents[1] / "latest"
        temporary = latest.with_name(f".latest.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.path.relative_to(latest.parent))
        os.replace(temporary, latest)


def environment() -> dict[str, Any]:
    """Versions, commit and device, for whoever wants to know what made a figure."""
    versions = {name: _version(name) for name in PACKAGES}
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "ragaf_exp": _version("ragaf_exp"), "commit": _commit(), "python": platform.python_version(),
        "platform": platform.platform(), "device": device, "cores": os.cpu_count(), "packages": versions,
        "command": [argument.removeprefix("++") for argument in sys.argv],
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the checkout this code runs from, with + where it was changed; None outside a checkout."""
    noted = Path(__file__).parents[1] / ".commit"  # a sweep's snapshot says what it was taken of
    if noted.exists():
        return noted.read_text() or None
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")
