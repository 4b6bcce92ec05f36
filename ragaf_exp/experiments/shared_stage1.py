"""One stage 1 for all members of a study that need the same: trained by the first, waited for by the others.

It lies under runs/<name>/stage1/<hash of what it depends on>. Each member links its checkpoint into its own folder, which
stands on its own. Who waits takes over where a trainer was killed, from its newest checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.compose import LIMITS, OUTPUT_KEYS
from ragaf_exp.config.moved import original
from ragaf_exp.config.schema import COARSE
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import remove_folder, write_folder, write_json, write_text
from ragaf_exp.core.safe_files import make_folder
from ragaf_exp.distributed import launch
from ragaf_exp.runs import metrics_jsonl
from ragaf_exp.runs.checkpoints import newest_whole
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.lock import LockHeld

log = logging.getLogger(__name__)
UNSEEN = (
    *OUTPUT_KEYS,
    "name",
    "init",
    "eval",
    "sampler",
    "regions",
    "graph",
    "graph_backend",
    "ragaf",
    "fusion",
    "injection",
)
UNSEEN_KEYS = {"stage": ("run", "refine"), "memory": ("tune", *LIMITS)}  # by stage 1, within groups that it sees
SEEN_LOSSES = ("diffusion",)


def needs(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that stage 1 depends on: all but what is known not to reach it."""
    whole = original(OmegaConf.to_container(cfg, resolve=True))
    content = {key: value for key, value in whole.items() if key not in UNSEEN}
    if cfg.stage.curriculum:  # the order of its items is by their regions
        content["regions"] = whole["regions"]
    for group, keys in UNSEEN_KEYS.items():
        content[group] = {key: value for key, value in content[group].items() if key not in keys}
    if "source" in whole["backbone"]:  # of a pretrained backbone memory.tune says what stage 1 trains, too
        content["memory"]["tune"] = whole["memory"]["tune"]
    content["loss"] = {key: content["loss"][key] for key in SEEN_LOSSES}
    return content


def folder_of(cfg: DictConfig) -> RunFolder:
    """Where the stage 1 that this config needs is trained."""
    name = hashlib.sha256(json.dumps(needs(cfg), sort_keys=True).encode()).hexdigest()[:16]
    return RunFolder(Path(cfg.runs).absolute() / cfg.name / "stage1" / name)


@contextmanager
def lock_stage1(cfg: DictConfig) -> Iterator[RunFolder]:
    """The place of this config's stage 1, held by this run alone: others wait here until it is done or dead."""
    place = folder_of(cfg)
    place.is_main = launch.is_main_process()
    with launch.main_process_first():
        if place.is_main:
            _acquire(place)
            write_json(place.path / "needs.json", needs(cfg))
            make_folder(place.samples)
            place.status("running")
    try:
        yield place
    finally:
        place.release()


def _acquire(place: RunFolder) -> None:
    place.path.mkdir(parents=True, exist_ok=True)
    try:
        place.acquire(0.0)
    except LockHeld:
        log.info("stage 1: another run is training it (%s); waiting", place.path)
        place.acquire(math.inf)


def link_stage1(place: RunFolder, folder: RunFolder) -> None:
    """Link the trained stage 1 into a member's own folder, with its log lines and grids."""
    with launch.main_process_first():
        if folder.is_main:
            _link_all(place, folder)


def _link_all(place: RunFolder, folder: RunFolder) -> None:
    trained = newest_whole(place.checkpoints, COARSE)
    if trained is None:
        raise UserError(f"{place.checkpoints}: no whole checkpoint of stage 1; run the same command again")
    here = folder.checkpoints / COARSE / trained.name
    remove_folder(here)  # only ever one that was found damaged
    write_folder(here, lambda temporary: [link(file, temporary / file.name) for file in trained.iterdir()])
    make_folder(folder.samples)
    for grid in place.samples.glob(f"{COARSE}-*.png"):
        link(grid, folder.samples / grid.name)
    lines, _ = metrics_jsonl.read(place.curves) if place.curves.exists() else ([], [])
    folder.rewind(COARSE, -1)
    after = folder.curves.read_text() if folder.curves.exists() else ""
    write_text(folder.curves, "".join(line.text for line in lines) + after)
    place.status("done")
    folder.saved()
    folder.status("running", stage1=os.path.relpath(place.path, folder.path))


def link(source: Path, target: Path) -> None:
    """A hard link: files of runs are replaced, never changed in place. A copy where the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
