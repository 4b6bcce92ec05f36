"""Extends a finished run: finds the sibling that differs only in steps, and resumes from its last checkpoints."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from omegaconf import DictConfig

from ragaf_exp.config.compose import LIMITS
from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import remove_folder, write_bytes, write_folder, write_text
from ragaf_exp.core.safe_files import is_folder, is_regular, read_bounded
from ragaf_exp.experiments.shared_stage import link
from ragaf_exp.runs import metrics_jsonl
from ragaf_exp.runs.checkpoints import newest_whole
from ragaf_exp.runs.flat_config import HASH, flat_config
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.optimizer import learning_rate

log = logging.getLogger(__name__)
STEPS = re.compile(r"stage\.\w+\.(region_)?steps")
NEWEST = 200  # the most run folders of the same name that are compared


def continue_sibling(cfg: DictConfig, folder: RunFolder) -> None:
    """Copy the checkpoints of a finished run with fewer steps into a new one (extend=true), or log that such a run exists.

    Raises UserError if extend=true and there is no such run, or this run has already started from step 0.
    """
    if not folder.is_main or not (folder.path / "status.json").exists() or folder.state.get("extended"):
        return
    resumes = "extends" in folder.state  # an earlier process was killed while it copied
    if not resumes and any(newest_whole(folder.checkpoints, stage.name) for stage in chain(cfg)):
        if cfg.extend:
            raise UserError(f"extend=true: {folder.path} has begun from step 0; leave out extend, or remove that folder")
        return
    sibling = finished_sibling(folder.path)
    if not (cfg.extend or resumes):
        if sibling is not None:
            log.info("%s: differs from this run only in steps (%s); extend=true resumes from its last checkpoint "
                     "instead of step 0", sibling, _difference(sibling, folder.path))  # fmt: skip
        return
    if sibling is None:
        raise UserError(f"extend=true: no finished run in {folder.path.parent} differs from this one only in fewer steps; "
                        "leave out extend to train from step 0")  # fmt: skip
    if cfg.study.share:
        raise UserError("extend=true: not with study.share=true, whose first stage several runs share; leave one out")
    folder.status("running", extends=os.path.relpath(sibling, folder.path))
    _copy_from(RunFolder(sibling), folder, cfg)
    folder.status("running", extended=True)


def finished_sibling(path: Path) -> Path | None:
    """The finished run next to `path` with the most steps among those that differ from it only in fewer steps."""
    mine, best, most_steps = flat_config(path / "config.yaml"), None, -1
    others = (p for p in path.parent.iterdir() if HASH.fullmatch(p.name) and p != path and not p.is_symlink())
    for other in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[:NEWEST]:
        theirs = flat_config(other / "config.yaml")
        if _steps(theirs).keys() != _steps(mine).keys() or _without_steps(theirs) != _without_steps(mine):
            continue
        fewer = all(steps <= _steps(mine)[key] for key, steps in _steps(theirs).items())
        total = sum(_steps(theirs).values())
        if fewer and total > most_steps and _trained(other):
            best, most_steps = other, total
    return best


def _trained(path: Path) -> bool:
    try:
        return bool(RunFolder(path).state.get("trained"))
    except UserError:  # a folder without a readable status
        return False


def _without_steps(flat: dict[str, str]) -> dict[str, str]:
    ignored = {f"memory.{key}" for key in LIMITS}
    return {key: value for key, value in flat.items() if key not in ignored and not STEPS.fullmatch(key)}


def _steps(flat: dict[str, str]) -> dict[str, int]:
    return {key: int(value) for key, value in flat.items() if STEPS.fullmatch(key)}


def _difference(sibling: Path, path: Path) -> str:
    theirs, mine = (_steps(flat_config(folder / "config.yaml")) for folder in (sibling, path))
    return ", ".join(f"{key}={steps}, here {mine[key]}" for key, steps in theirs.items() if steps != mine[key])


def _copy_from(source: RunFolder, folder: RunFolder, cfg: DictConfig) -> None:
    """Link the checkpoints of the stages that can resume, and copy the tokenizer and the metrics of these stages."""
    old = _steps(flat_config(source.path / "config.yaml"))
    stages = [stage for stage in _resumable(old, cfg) if is_folder(source.checkpoints / stage)]
    for stage in stages:
        _link_newest(source, folder, stage)
    write_bytes(folder.tokenizer, read_bounded(source.tokenizer), own=True)
    write_text(folder.curves, "".join(_lines(source.curves, stages)), own=True)
    for stage in stages:
        _log_resumption(stage, old[f"stage.{stage}.steps"], cfg, source.path)
    for stage in (name for name in cfg.stage.run if name not in stages):
        log.info("stage %s: trains from step 0, since the steps before it have changed", stage)


def _resumable(old: dict[str, int], cfg: DictConfig) -> list[str]:
    """The stages up to the first whose steps have changed, without it if its region steps have, as these come first."""
    stages = []
    for stage in chain(cfg):
        if old[f"stage.{stage.name}.region_steps"] != stage.settings["region_steps"]:
            break
        stages.append(stage.name)
        if old[f"stage.{stage.name}.steps"] != stage.settings["steps"]:
            break
    return stages


def _link_newest(source: RunFolder, folder: RunFolder, stage: str) -> None:
    newest = newest_whole(source.checkpoints, stage)
    if newest is None:
        raise UserError(f"extend=true: {source.checkpoints / stage} holds no intact checkpoint; leave out extend")
    target = folder.checkpoints / stage / newest.name
    remove_folder(target)  # of an interrupted copy
    write_folder(target, lambda temporary: [link(file, temporary / file.name) for file in newest.iterdir()])


def _lines(curves: Path, stages: list[str]) -> list[str]:
    """The complete lines of metrics.jsonl that belong to these stages."""
    lines = metrics_jsonl.read(curves)[0] if is_regular(curves) else []
    return [line.text for line in lines if line.row["stage"] in stages]


def _log_resumption(stage: str, done: int, cfg: DictConfig, source: Path) -> None:
    """Log the step from which a stage resumes, and how its learning rate changes."""
    stage_cfg = cfg.stage[stage]
    if done == stage_cfg.steps:
        log.info("stage %s: copied from %s, where it is fully trained", stage, source)
        return
    before, after = (learning_rate(step, steps, stage_cfg.lr, cfg.optim) for step, steps in
                     ((done - 1, done), (done, stage_cfg.steps)))  # fmt: skip
    log.info("stage %s: resumes from step %d of %s, up to step %d", stage, done, source, stage_cfg.steps)
    log.info("stage %s: its learning rate now follows the schedule of %d steps: %.3g, after %.3g at the end of that run",
             stage, stage_cfg.steps, after, before)  # fmt: skip
