"""One stage 1 for all members of a study that need the same: trained by the first, waited for by the others.

It lies under runs/<name>/stage1/<hash of what it depends on>. Each member links its checkpoint into its own folder, which
stands on its own. Who waits takes over where a trainer was killed, from its newest checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import PLACE
from ragaf_exp.config.schema import COARSE
from ragaf_exp.errors import UserError
from ragaf_exp.files import write_folder, write_json, write_text
from ragaf_exp.runfolder import RunFolder
from ragaf_exp.training.checkpoint import newest_whole

log = logging.getLogger(__name__)
UNSEEN = (*PLACE, "name", "init", "eval", "sampler", "regions", "graph", "graph_backend", "ragaf", "fusion", "injection")
UNSEEN_KEYS = {"stage": ("run", "refine"), "memory": ("tune",)}  # by stage 1, within groups that it sees
SEEN_LOSSES = ("diffusion",)
POLL = 0.5  # seconds between two looks at whether the trainer is done


def needs(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that stage 1 depends on: all but what is known not to reach it."""
    content = {key: value for key, value in OmegaConf.to_container(cfg, resolve=True).items() if key not in UNSEEN}
    for group, keys in UNSEEN_KEYS.items():
        content[group] = {key: value for key, value in content[group].items() if key not in keys}
    content["loss"] = {key: content["loss"][key] for key in SEEN_LOSSES}
    return content


def place_of(cfg: DictConfig) -> RunFolder:
    """Where the stage 1 that this config needs is trained."""
    name = hashlib.sha256(json.dumps(needs(cfg), sort_keys=True).encode()).hexdigest()[:16]
    return RunFolder(Path(cfg.runs).absolute() / cfg.name / "stage1" / name)


@contextmanager
def held(cfg: DictConfig) -> Iterator[RunFolder]:
    """The place of this config's stage 1, held by this process alone: others wait here until it is done or dead."""
    place = place_of(cfg)
    place.path.mkdir(parents=True, exist_ok=True)
    with open(place.path / ".lock", "a") as lock:  # goes with the process, however it ends
        _wait(lock, place.path)
        for left in place.path.rglob(".*.tmp"):  # by a process that was killed in a write
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        write_json(place.path / "needs.json", needs(cfg))
        place.samples.mkdir(exist_ok=True)
        place.status("running")
        yield place


def _wait(lock: Any, path: Path) -> None:
    told = False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                log.info("stage 1: another run is training it (%s); waiting", path)
            told = True
            time.sleep(POLL)


def adopt(place: RunFolder, folder: RunFolder) -> None:
    """Link the trained stage 1 into a member's own folder, with its log lines and grids."""
    trained = newest_whole(place.checkpoints, COARSE)
    if trained is None:
        raise UserError(f"{place.checkpoints}: no whole checkpoint of stage 1; run the same command again")
    here = folder.checkpoints / COARSE / trained.name
    shutil.rmtree(here, ignore_errors=True)  # only ever one that was found damaged
    here.parent.mkdir(parents=True, exist_ok=True)
    write_folder(here, lambda temporary: [_link(file, temporary / file.name) for file in trained.iterdir()])
    folder.samples.mkdir(exist_ok=True)
    for grid in place.samples.glob(f"{COARSE}-*.png"):
        _link(grid, folder.samples / grid.name)
    lines = place.curves.read_text().splitlines(keepends=True)
    folder.rewind(COARSE, -1)
    after = folder.curves.read_text() if folder.curves.exists() else ""
    write_text(folder.curves, "".join(line for line in lines if line.endswith("\n")) + after)
    folder.status("running", stage1=os.path.relpath(place.path, folder.path))


def _link(source: Path, target: Path) -> None:
    """A hard link: files of runs are replaced, never changed in place. A copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
