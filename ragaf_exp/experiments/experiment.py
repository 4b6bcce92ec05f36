"""One run from config to report."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from ragaf_exp.experiments.job import job
from ragaf_exp.experiments.later import later_modules
from ragaf_exp.experiments.training import Training, check_memory
from ragaf_exp.runs import data_record
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> RunFolder:
    """Train, evaluate and report. Resumes a run of the same config that an earlier process left unfinished."""
    with job(cfg) as folder:  # the run folder, its lock and heartbeat, signals, the process group, requeueing
        if folder.done():
            return _finished(folder, cfg)
        training = Training(cfg, folder)  # data, networks, tokenizer; checks what later phases need
        check_memory(cfg)  # refuses before the first step
        models = training.inherited()
        with training.started():  # encoder cache, loggers
            for stage in training.stages:  # see config/stages.py
                models[stage] = training.train(stage, models)
        folder.status("running", trained=True)
        if folder.is_main:
            later = later_modules()
            later.evaluation.evaluate_run(folder, cfg)
            folder.status("done")
            later.report.write_report(folder.path)
    return folder


def _finished(folder: RunFolder, cfg: DictConfig) -> RunFolder:
    if folder.is_main:
        data_record.check_finished(folder.path, cfg.data)
    log.info("%s: already finished; change the seed or the name for a new run", folder.path)
    if folder.is_main and not (folder.report.exists() and folder.report.stat().st_size):
        later_modules().report.write_report(folder.path)
    return folder
