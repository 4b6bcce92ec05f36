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
from ragaf_exp.config.compose import AUTO, as_hydra_override, compose_config, with_choices
from ragaf_exp.config.grammar import check_flags
from ragaf_exp.config.hydra_versions import VERSION_BASE, is_study
from ragaf_exp.config.paths import expanded as expanded_path
from ragaf_exp.config.paths import unquoted
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.experiments.start import start
from ragaf_exp.runs.signals import Interrupted


@hydra.main(**VERSION_BASE, config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> None:
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        member(cfg)
    else:
        guarded(lambda: start(_checked(cfg)))  # here: Hydra would print another line before an error


class MemberFailed(UserError):
    """A member of a multirun was refused, or failed; its launcher runs the others, and raises this at the end."""


def member(cfg: DictConfig) -> None:
    """One member of a multirun. Its error is printed when it happens, and does not end the others, as sys.exit would."""
    try:
        guarded(lambda: start(_checked(cfg)))
    except SystemExit as end:
        error = end.__context__
        if end.code == 130 or isinstance(error and error.__cause__, Interrupted):  # Ctrl-C or a signal ends all
            raise
        overrides = " ".join(o.lstrip("+") for o in HydraConfig.get().overrides.task)
        why = explain(error) if error else f"ended with status {end.code}"
        raise MemberFailed(f"{overrides}: {why}; the other members were run") from None


def _checked(cfg: DictConfig) -> DictConfig:
    """The checked config; memory=auto is replaced by the profile that fits this machine, which runs it."""
    overrides = list(HydraConfig.get().overrides.task)
    if AUTO not in overrides:
        return validate(cfg)
    from ragaf_exp.plan.auto import select_profile  # imports PyTorch

    return compose_config(select_profile(overrides))


def command_line() -> None:
    """The entry point of `python -m ragaf_exp.run`."""
    overrides = expanded(sys.argv[1:])
    if {"hydra/launcher=joblib", "hydra/launcher=submitit_local"} & set(overrides):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # members share this machine's cores
        os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.process")  # see compose.py
    if any(o.startswith("hydra/launcher=submitit") for o in overrides) and "RAGAF_SNAPSHOT" not in os.environ:
        _restart_from_snapshot(overrides)
    check_flags(overrides)
    sys.argv[1:] = [as_hydra_override(o, sweeps=bool(MULTIRUN & set(overrides))) for o in with_choices(overrides)]
    main()


STUDY = "hydra.mode=MULTIRUN"
MULTIRUN = {"-m", "--multirun", STUDY}


def expanded(overrides: list[str]) -> list[str]:
    """Replace +sweep=NAME by the overrides of that sweep's file; other given overrides win over them.

    Presets that are studies are given their hydra.mode.

    Raises UserError if there is no such sweep.
    """
    from ragaf_exp.sweep.definition import read_sweep

    names = [o.partition("=")[2] for o in overrides if o.startswith("+sweep=")]
    given = [o for o in overrides if not o.startswith("+sweep=")]
    keys = {o.partition("=")[0].lstrip("+") for o in given}
    of_sweeps = [o for name in names for o in read_sweep(name).all_overrides]
    swept = [o for o in of_sweeps if o.partition("=")[0].lstrip("+") not in keys]
    presets = [o.partition("=")[2] for o in given if o.startswith("+experiment=")]
    studies = not names and not MULTIRUN & set(given) and "hydra.mode" not in keys and any(map(is_study, presets))
    return [*(["-m"] if names else []), *([STUDY] if studies else []), *swept, *given]


def _restart_from_snapshot(overrides: list[str]) -> None:
    """Replace this process by one that runs a snapshot of code and configs, which submitit's jobs then import too."""
    from ragaf_exp.sweep.snapshot import take

    if sys.version_info < (3, 11):  # a job would import from the folder that it is started in
        raise UserError("hydra/launcher=submitit_*: needs Python 3.11; python -m ragaf_exp.sweep submit does not")
    given = next((o[5:] for o in overrides if o.startswith("runs=")), "runs")
    runs = Path(expanded_path(unquoted(given))).absolute()
    code = str(take(runs))
    environment = {**os.environ, "RAGAF_SNAPSHOT": code, "PYTHONPATH": code, "PYTHONSAFEPATH": "1"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "ragaf_exp.run", *overrides], environment)


if __name__ == "__main__":
    guarded(command_line)
