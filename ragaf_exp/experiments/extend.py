"""Extends a finished run: finds the sibling that differs only in steps, and resumes from its last checkpoints."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from omegaconf import DictConfig

from ragaf_exp.config.compose import LIMITS
from ragaf_exp.config.stages import FIRST, LAST, STAGES
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
STEPS = (f"stage.{FIRST.name}.steps", f"stage.{LAST.name}.steps", f"stage.{LAST.name}.region_steps")
NEWEST = 200  # the most run folders of the same name that are compared


def continue_sibling(cfg: DictConfig, folder: RunFolder) -> None:
    """Copy the checkpoints of a finished run with fewer steps into a new one (extend=true), or log that such a run exists.

    Raises UserError if extend=true and there is no such run, or this run has already started from step 0.
    """
    if not folder.is_main or not (folder.path / "status.json").exists() or folder.state.get("extended"):
        return
    resumes = "extends" in folder.state  # an earlier process was killed while it copied
    if not resumes and any(newest_whole(folder.checkpoints, stage) for stage in STAGES):
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
        raise UserError("extend=true: not with study.share=true, whose stage 1 several runs share; leave one out")
    folder.status("running", extends=os.path.relpath(sibling, folder.path))
    _copy_from(RunFolder(sibling), folder, cfg)
    folder.status("running", extended=True)


def finished_sibling(path: Path) -> Path | None:
    """The finished run next to `path` with the most steps among those that differ from it only in fewer steps."""
    mine, best, most_steps = flat_config(path / "config.yaml"), None, -1
    others = (p for p in path.parent.iterdir() if HASH.fullmatch(p.name) and p != path and not p.is_symlink())
    for other in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[:NEWEST]:
        theirs = flat_config(other / "config.yaml")
        if not set(STEPS) <= set(theirs) or _without_steps(theirs) != _without_steps(mine):
            continue
        fewer = all(int(theirs[key]) <= int(mine[key]) for key in STEPS)
        total = sum(int(theirs[key]) for key in STEPS)
        if fewer and total > most_steps and _trained(other):
            best, most_steps = other, total
    return best


def _trained(path: Path) -> bool:
    try:
        return bool(RunFolder(path).state.get("trained"))
    except UserError:  # a folder without a readable status
        return False


def _without_steps(flat: dict[str, str]) -> dict[str, str]:
    ignored = {*STEPS, *(f"memory.{key}" for key in LIMITS)}
    return {key: value for key, value in flat.items() if key not in ignored}


def _difference(sibling: Path, path: Path) -> str:
    theirs, mine = flat_config(sibling / "config.yaml"), flat_config(path / "config.yaml")
    return ", ".join(f"{key}={theirs[key]}, here {mine[key]}" for key in STEPS if theirs[key] != mine[key])


def _copy_from(source: RunFolder, folder: RunFolder, cfg: DictConfig) -> None:
    """Link the checkpoints of the stages that can resume, and copy the tokenizer and the metrics of these stages."""
    old = flat_config(source.path / "config.yaml")
    stages = [FIRST.name] if old[STEPS[0]] != str(FIRST.setting(cfg, "steps")) else list(STAGES)
    if old[STEPS[2]] != str(LAST.setting(cfg, "region_steps")):  # region steps come first, so none can be added later
        stages = [FIRST.name]
    stages = [stage for stage in stages if is_folder(source.checkpoints / stage)]
    for stage in stages:
        _link_newest(source, folder, stage)
    write_bytes(folder.tokenizer, read_bounded(source.tokenizer), own=True)
    write_text(folder.curves, "".join(_lines(source.curves, stages)), own=True)
    for stage in stages:
        _log_resumption(stage, int(old[f"stage.{stage}.steps"]), cfg, source.path)
    if LAST.name in cfg.stage.run and LAST.name not in stages:
        log.info("stage %s: trains from step 0, since the steps before it have changed", LAST.name)


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
