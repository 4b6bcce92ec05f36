"""Shares the first stage between all members of a study with the same config of it: one trains it, the others wait.

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
from ragaf_exp.config.stages import IMAGES, StageSpec, chain
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
LATER_GROUPS = (*OUTPUT_KEYS, "name", "init", "eval", "sampler")  # without effect on the first stage
REGION_GROUPS = ("regions", "graph", "graph_backend", "ragaf", "fusion", "injection")  # where it has no regions, as these
REGION_KEYS = {"memory": ("tune",), "task": ("assign",)}
LOSSES = ("diffusion",)  # of a stage without regions


def needs(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that the first stage depends on: all but groups and keys known to have no effect on it."""
    full, first = original(OmegaConf.to_container(cfg, resolve=True)), _first(cfg)
    content = {key: value for key, value in full.items() if key not in LATER_GROUPS}
    content["memory"] = {key: value for key, value in content["memory"].items() if key not in LIMITS}
    content["stage"] = {key: value for key, value in content["stage"].items()
                        if key == first.name or not (key == "run" or isinstance(value, dict))}  # fmt: skip
    return content if first.has_regions else _without_regions(content, cfg)


def _without_regions(content: dict[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Leave out what has no effect on a stage without regions."""
    ordered = ("regions",) if cfg.stage.curriculum else ()  # items are ordered by their regions
    rest = {key: value for key, value in content.items() if key not in REGION_GROUPS or key in ordered}
    for group, keys in REGION_KEYS.items():
        rest[group] = {key: value for key, value in content[group].items() if key not in keys}
    if "source" in cfg.backbone:  # with a pretrained backbone, memory.tune also selects what the first stage trains
        rest["memory"]["tune"] = cfg.memory.tune
    rest["loss"] = {key: content["loss"][key] for key in LOSSES}
    return rest


def _first(cfg: DictConfig) -> StageSpec:
    return chain(cfg)[0]


def folder_of(cfg: DictConfig) -> RunFolder:
    """The folder in which the first stage of this config is trained."""
    name = json_digest(needs(cfg))
    return RunFolder(Path(cfg.runs).absolute() / cfg.name / _first(cfg).image / name)


@contextmanager
def lock_shared(cfg: DictConfig) -> Iterator[RunFolder]:
    """Lock the shared folder of this config's first stage. Other runs wait until its owner is done or has died."""
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
        log.info("first stage: another run is training it (%s); waiting", shared.path)
        shared.acquire(math.inf)


def link_shared(stage: str, shared: RunFolder, folder: RunFolder) -> None:
    """Link the trained stage, its metrics and grids from the shared folder into a member's run folder.

    Args:
        stage: Name of the stage.
        shared: The folder in which it was trained.
        folder: The run folder.
    """
    with launch.main_process_first():
        if folder.is_main:
            _link_all(stage, shared, folder)


def _link_all(stage: str, shared: RunFolder, folder: RunFolder) -> None:
    trained = newest_whole(shared.checkpoints, stage)
    if trained is None:
        raise UserError(f"{shared.checkpoints}: no intact checkpoint of stage {stage}; run the same command again")
    target = folder.checkpoints / stage / trained.name
    remove_folder(target)  # if it exists, it is damaged
    write_folder(target, lambda temporary: [link(file, temporary / file.name) for file in trained.iterdir()])
    make_folder(folder.samples)
    for grid in shared.samples.glob(f"{stage}-*.png"):
        link(grid, folder.samples / grid.name)
    lines, _ = metrics_jsonl.read(shared.curves) if shared.curves.exists() else ([], [])
    folder.rewind(stage, -1)
    after = folder.curves.read_text() if folder.curves.exists() else ""
    write_text(folder.curves, "".join(line.text for line in lines) + after)
    shared.status("done")
    folder.saved()
    folder.status("running", **{IMAGES[0]: os.path.relpath(shared.path, folder.path)})


def link(source: Path, target: Path) -> None:
    """Hard-link a file, as files of runs are never changed in place; copy it if the file system has no links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
