"""Trains, evaluates and reports one experiment, or a multirun of several.

    python -m ragaf_exp.run [+experiment=NAME] [GROUP=OPTION ...] [KEY=VALUE ...] [-m] [--cfg job]

+experiment: a preset of conf/experiment/. GROUP=OPTION: an option of conf/GROUP/, e.g. graph=knn. KEY=VALUE: any key of
the config, e.g. stage.batch=8. -m: a Hydra multirun over comma-separated values. +sweep=NAME: a file of sweeps/.
--cfg job: print the composed config and stop. --hydra-help: Hydra's own options.

The run folder is runs/NAME/HASH: the same command continues an interrupted run. Example:

    python -m ragaf_exp.run +experiment=smoke seed=1
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ragaf_exp.config.command_line import explain, guarded
from ragaf_exp.config.compose import AUTO, as_hydra_override, compose_config
from ragaf_exp.config.grammar import check_flags
from ragaf_exp.config.paths import expanded as expanded_path
from ragaf_exp.config.paths import unquoted
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.imports import stub_optional_imports
from ragaf_exp.core.resources import CONF
from ragaf_exp.runs.signals import STOP, Interrupted, Stopped


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        member(cfg)
    else:
        guarded(lambda: job(_checked(cfg)))  # here: Hydra would put a line of its own before an error's


class MemberFailed(UserError):
    """A member of a multirun was refused, or failed; its launcher runs the others, and raises this at the end."""


def member(cfg: DictConfig) -> None:
    """One member of a multirun. Its error is printed when it happens, and does not end the others, as sys.exit would."""
    try:
        guarded(lambda: job(_checked(cfg)))
    except SystemExit as end:
        error = end.__context__
        if end.code == 130 or isinstance(error and error.__cause__, Interrupted):  # Ctrl-C or a signal ends all
            raise
        overrides = " ".join(word.lstrip("+") for word in HydraConfig.get().overrides.task)
        why = explain(error) if error else f"ended with status {end.code}"
        raise MemberFailed(f"{overrides}: {why}; the other members were run") from None


def _checked(cfg: DictConfig) -> DictConfig:
    """The job's checked config; of memory=auto what this machine, which runs it, has room for."""
    words = list(HydraConfig.get().overrides.task)
    if AUTO not in words:
        return validate(cfg)
    from ragaf_exp.plan.auto import select_profile  # imports PyTorch

    return compose_config(select_profile(words))


def job(cfg: DictConfig) -> None:
    """One run, or one member of a sweep."""
    with STOP.listening():
        try:
            with stub_optional_imports():  # heavy: only once the config is known to be good
                from ragaf_exp.experiments.experiment import run
        except Stopped as stop:
            from ragaf_exp.runs.folder import requeue

            requeue(cfg)
            raise UserError(f"{stop} before it began; the same command continues") from stop
        if (folder := run(cfg)).is_main:
            from ragaf_exp.report.terminal import print_summary  # with the report's names of figures, which no step needs

            print_summary(folder)


def command_line() -> None:
    """What `python -m ragaf_exp.run` calls."""
    words = expanded(sys.argv[1:])
    if {"hydra/launcher=joblib", "hydra/launcher=submitit_local"} & set(words):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # members share this machine's cores
        os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.process")  # see compose.py
    if any(word.startswith("hydra/launcher=submitit") for word in words) and "RAGAF_SNAPSHOT" not in os.environ:
        _from_snapshot(words)
    check_flags(words)
    sys.argv[1:] = [as_hydra_override(word, sweeps=bool(MULTIRUN & set(words))) for word in words]
    main()


MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}


def expanded(words: list[str]) -> list[str]:
    """The words with those of a sweep in place of +sweep=NAME; UserError where there is no such sweep."""
    from ragaf_exp.sweep.definition import read_sweep

    names = [word.partition("=")[2] for word in words if word.startswith("+sweep=")]
    given = [word for word in words if not word.startswith("+sweep=")]
    keys = {word.partition("=")[0].lstrip("+") for word in given}
    of_sweeps = [word for name in names for word in read_sweep(name).all_overrides]
    swept = [word for word in of_sweeps if word.partition("=")[0].lstrip("+") not in keys]
    return [*(["-m"] if names else []), *swept, *given]


def _from_snapshot(words: list[str]) -> None:
    """Begin again from a snapshot of code and configs: submitit's jobs then import it too, and compose from it."""
    from ragaf_exp.sweep.snapshot import take

    if sys.version_info < (3, 11):  # a job would import the folder that it is started in
        raise UserError("hydra/launcher=submitit_*: needs Python 3.11; python -m ragaf_exp.sweep submit does without")
    given = next((word[5:] for word in words if word.startswith("runs=")), "runs")
    runs = Path(expanded_path(unquoted(given))).absolute()
    code = str(take(runs))
    environment = {**os.environ, "RAGAF_SNAPSHOT": code, "PYTHONPATH": code, "PYTHONSAFEPATH": "1"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "ragaf_exp.run", *words], environment)


if __name__ == "__main__":
    guarded(command_line)
