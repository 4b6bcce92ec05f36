"""Shares stage 1 between all members of a study with the same stage 1 config: the first trains it, the others wait.

It is stored in runs/<name>/stage1/<hash of its config>. Each member links the checkpoint into its run folder and does not
depend on the shared one. If the process that trains it is killed, a waiting one resumes from the newest checkpoint.
"""

from __future__ import annotations

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
from ragaf_exp.config.stages import FIRST, LAST
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import remove_folder, write_folder, write_json, write_text
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.safe_files import make_folder
from ragaf_exp.distributed import launch
from ragaf_exp.runs import metrics_jsonl
from ragaf_exp.runs.checkpoints import newest_whole
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.lock import LockHeld

log = logging.getLogger(__name__)
IRRELEVANT_GROUPS = (
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
# keys without effect on stage 1, by group
IRRELEVANT_KEYS = {"stage": ("run", LAST.name), "memory": ("tune", *LIMITS), "task": ("assign",)}
STAGE1_LOSSES = ("diffusion",)


def needs(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that stage 1 depends on: everything except groups and keys known to have no effect on it."""
    full = original(OmegaConf.to_container(cfg, resolve=True))
    content = {key: value for key, value in full.items() if key not in IRRELEVANT_GROUPS}
    if cfg.stage.curriculum:  # it orders items by their regions
        content["regions"] = full["regions"]
    for group, keys in IRRELEVANT_KEYS.items():
        content[group] = {key: value for key, value in content[group].items() if key not in keys}
    if "source" in full["backbone"]:  # with a pretrained backbone, memory.tune also selects what stage 1 trains
        content["memory"]["tune"] = full["memory"]["tune"]
    content["loss"] = {key: content["loss"][key] for key in STAGE1_LOSSES}
    return content


def folder_of(cfg: DictConfig) -> RunFolder:
    """The folder in which the stage 1 of this config is trained."""
    name = json_digest(needs(cfg))
    return RunFolder(Path(cfg.runs).absolute() / cfg.name / "stage1" / name)


@contextmanager
def lock_shared(cfg: DictConfig) -> Iterator[RunFolder]:
    """Lock the shared folder of this config's stage 1. Other runs wait until its owner is done or has died."""
    shared = folder_of(cfg)
    shared.is_main = launch.is_main_process()
    with launch.main_process_first():
        if shared.is_main:
            _acquire(shared)
            write_json(shared.path / "needs.json", needs(cfg))
            make_folder(shared.samples)
            shared.status("running")
    try:
        yield shared
    finally:
        shared.release()


def _acquire(shared: RunFolder) -> None:
    shared.path.mkdir(parents=True, exist_ok=True)
    try:
        shared.acquire(0.0)
    except LockHeld:
        log.info("stage 1: another run is training it (%s); waiting", shared.path)
        shared.acquire(math.inf)


def link_shared(shared: RunFolder, folder: RunFolder) -> None:
    """Link the trained stage 1, its metrics and grids from the shared folder into a member's run folder."""
    with launch.main_process_first():
        if folder.is_main:
            _link_all(shared, folder)


def _link_all(shared: RunFolder, folder: RunFolder) -> None:
    trained = newest_whole(shared.checkpoints, FIRST.name)
    if trained is None:
        raise UserError(f"{shared.checkpoints}: no intact checkpoint of stage 1; run the same command again")
    target = folder.checkpoints / FIRST.name / trained.name
    remove_folder(target)  # if it exists, it is damaged
    write_folder(target, lambda temporary: [link(file, temporary / file.name) for file in trained.iterdir()])
    make_folder(folder.samples)
    for grid in shared.samples.glob(f"{FIRST.name}-*.png"):
        link(grid, folder.samples / grid.name)
    lines, _ = metrics_jsonl.read(shared.curves) if shared.curves.exists() else ([], [])
    folder.rewind(FIRST.name, -1)
    after = folder.curves.read_text() if folder.curves.exists() else ""
    write_text(folder.curves, "".join(line.text for line in lines) + after)
    shared.status("done")
    folder.saved()
    folder.status("running", stage1=os.path.relpath(shared.path, folder.path))


def link(source: Path, target: Path) -> None:
    """Hard-link a file, as files of runs are never changed in place; copy it if the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
