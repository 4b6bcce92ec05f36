"""More steps for a finished run: which sibling differs in steps alone, and training on from its last checkpoints."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from omegaconf import DictConfig

from ragaf_exp.config.compose import LIMITS
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import remove_folder, write_bytes, write_folder, write_text
from ragaf_exp.core.safe_files import is_folder, is_regular, read_bounded
from ragaf_exp.experiments.shared_stage1 import link
from ragaf_exp.runs import metrics_jsonl
from ragaf_exp.runs.checkpoints import newest_whole
from ragaf_exp.runs.flat_config import HASH, flat_config
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.optimizer import learning_rate

log = logging.getLogger(__name__)
STEPS = ("stage.coarse.steps", "stage.refine.steps", "stage.refine.region_steps")
NEWEST = 200  # run folders of the same name that are compared


def continue_sibling(cfg: DictConfig, folder: RunFolder) -> None:
    """Give a new run the checkpoints of a finished one with fewer steps (extend=true), or name that run in one line.

    UserError where extend=true and there is none, or where this run has begun from step 0.
    """
    if not folder.is_main or not (folder.path / "status.json").exists() or folder.state.get("extended"):
        return
    resumes = "extends" in folder.state  # killed while it copied
    if not resumes and any(newest_whole(folder.checkpoints, stage) for stage in (COARSE, REFINE)):
        if cfg.extend:
            raise UserError(f"extend=true: {folder.path} has begun from step 0; leave extend out, or remove that folder")
        return
    found = finished_sibling(folder.path)
    if not (cfg.extend or resumes):
        if found is not None:
            log.info("%s: differs from this run in steps alone (%s); extend=true continues from its last checkpoint "
                     "instead of step 0", found, _difference(found, folder.path))  # fmt: skip
        return
    if found is None:
        raise UserError(f"extend=true: no finished run in {folder.path.parent} differs from this one in fewer steps alone; "
                        "leave extend out to train from step 0")  # fmt: skip
    if cfg.study.share:
        raise UserError("extend=true: not with study.share=true, whose stage 1 belongs to several runs; leave one out")
    folder.status("running", extends=os.path.relpath(found, folder.path))
    _take_over(RunFolder(found), folder, cfg)
    folder.status("running", extended=True)


def finished_sibling(path: Path) -> Path | None:
    """The finished run beside `path` with the most steps of those that differ from it in fewer steps alone."""
    mine, best, most = flat_config(path / "config.yaml"), None, -1
    others = (p for p in path.parent.iterdir() if HASH.fullmatch(p.name) and p != path and not p.is_symlink())
    for other in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[:NEWEST]:
        theirs = flat_config(other / "config.yaml")
        if not set(STEPS) <= set(theirs) or _apart_from_steps(theirs) != _apart_from_steps(mine):
            continue
        fewer = all(int(theirs[key]) <= int(mine[key]) for key in STEPS)
        total = sum(int(theirs[key]) for key in STEPS)
        if fewer and total > most and _trained(other):
            best, most = other, total
    return best


def _trained(path: Path) -> bool:
    try:
        return bool(RunFolder(path).state.get("trained"))
    except UserError:  # a folder without a readable status
        return False


def _apart_from_steps(flat: dict[str, str]) -> dict[str, str]:
    ignored = {*STEPS, *(f"memory.{key}" for key in LIMITS)}
    return {key: value for key, value in flat.items() if key not in ignored}


def _difference(found: Path, path: Path) -> str:
    theirs, mine = flat_config(found / "config.yaml"), flat_config(path / "config.yaml")
    return ", ".join(f"{key}={theirs[key]}, here {mine[key]}" for key in STEPS if theirs[key] != mine[key])


def _take_over(source: RunFolder, folder: RunFolder, cfg: DictConfig) -> None:
    """Link the checkpoints of the stages that can continue, and copy the tokenizer and their log lines."""
    old = flat_config(source.path / "config.yaml")
    stages = [COARSE] if old[STEPS[0]] != str(cfg.stage.coarse.steps) else [COARSE, REFINE]
    if old[STEPS[2]] != str(cfg.stage.refine.region_steps):  # they come first: none can be added in the middle
        stages = [COARSE]
    stages = [stage for stage in stages if is_folder(source.checkpoints / stage)]
    for stage in stages:
        _link_newest(source, folder, stage)
    write_bytes(folder.tokenizer, read_bounded(source.tokenizer), own=True)
    write_text(folder.curves, "".join(_lines(source.curves, stages)), own=True)
    for stage in stages:
        _announce(stage, int(old[f"stage.{stage}.steps"]), cfg, source.path)
    if REFINE in cfg.stage.run and REFINE not in stages:
        log.info("stage %s: trains from step 0, as what comes before its own steps has changed", REFINE)


def _link_newest(source: RunFolder, folder: RunFolder, stage: str) -> None:
    newest = newest_whole(source.checkpoints, stage)
    if newest is None:
        raise UserError(f"extend=true: {source.checkpoints / stage} holds no whole checkpoint; leave extend out")
    here = folder.checkpoints / stage / newest.name
    remove_folder(here)  # of a copy that was interrupted
    write_folder(here, lambda temporary: [link(file, temporary / file.name) for file in newest.iterdir()])


def _lines(curves: Path, stages: list[str]) -> list[str]:
    """Whole lines of metrics.jsonl that belong to these stages."""
    lines = metrics_jsonl.read(curves)[0] if is_regular(curves) else []
    return [line.text for line in lines if line.row["stage"] in stages]


def _announce(stage: str, done: int, cfg: DictConfig, source: Path) -> None:
    """Say where the stage continues and what becomes of its learning rate."""
    pace = cfg.stage[stage]
    if done == pace.steps:
        log.info("stage %s: taken from %s, trained to its end", stage, source)
        return
    before, after = (learning_rate(step, steps, pace.lr, cfg.optim) for step, steps in
                     ((done - 1, done), (done, pace.steps)))  # fmt: skip
    log.info("stage %s: continues from step %d of %s to step %d", stage, done, source, pace.steps)
    log.info("stage %s: its learning rate follows the schedule of %d steps from there: %.3g, after %.3g at that run's end",
             stage, pace.steps, after, before)  # fmt: skip
