"""Starts one run: imports PyTorch, trains, evaluates, reports, and prints a summary."""

from __future__ import annotations

from omegaconf import DictConfig

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.runs.signals import STOP, Stopped


def start(cfg: DictConfig) -> None:
    """Execute one run, or one member of a sweep. Raises UserError if a signal arrived during the imports."""
    with STOP.listening():
        try:
            with stub_optional_imports():  # slow imports: only after the config has been checked
                from ragaf_exp.experiments.experiment import run
        except Stopped as stop:
            from ragaf_exp.runs.folder import requeue

            requeue(cfg)
            raise UserError(f"{stop} before it began; the same command continues") from stop
        if (folder := run(cfg)).is_main:
            from ragaf_exp.report.terminal import print_summary  # imports metric names, which training does not need

            print_summary(folder)
