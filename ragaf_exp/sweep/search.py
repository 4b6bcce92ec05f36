"""Hyper-parameter search with Optuna over a sweep's members, with the same run folders, snapshot and status.

Hydra-optuna-sweeper is not used because its newest release, 1.3.0, requires optuna<3 and keeps its state in the launching
process. Here the study is a journal in the sweep's folder, and the same command resumes it however the last one ended.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ragaf_exp.config.command_line import explain
from ragaf_exp.config.compose import as_hydra_override
from ragaf_exp.core.errors import UserError
from ragaf_exp.sweep.definition import Sweep, hydra_value
from ragaf_exp.sweep.ledger import Record
from ragaf_exp.sweep.members import Member, compose_members
from ragaf_exp.sweep.reading import metrics_of
from ragaf_exp.sweep.status import BAD, rows
from ragaf_exp.sweep.submit import submit

KEYS = ("metric", "direction", "space", "seed")
RANGE = ("low", "high", "log", "step")
POLL = 2.0  # seconds between checks of the members


def search(sweep: Sweep, overrides: list[str], launcher: str, processes: int, trials: int) -> int:
    """Run trials until the study has `trials` of them.

    A member that fails is a failed trial. Trials of an earlier call whose members are queued or done are resumed.

    Args:
        sweep: The sweep file, with settings under search.
        overrides: Hydra overrides for all members.
        launcher: slurm or local.
        processes: The number of trials that run at the same time.
        trials: The number of trials in the study, earlier ones included.

    Returns:
        Exit status: 1 if no trial was measured or one failed, else 0.

    Raises:
        UserError: If Optuna is not installed, the settings are wrong, or another process runs this search.
    """
    _needs_optuna()
    settings = _checked(sweep)
    if trials < 1:
        raise UserError(f"trials={trials}: must be at least 1")
    base = [*sweep.all_overrides, *overrides]
    record = Record(compose_members([*base, *_first(settings["space"])])[0].home)
    record.folder.mkdir(parents=True, exist_ok=True)
    with _search_lock(record):
        study = _study(record, sweep.name, settings)
        active: dict[int, Member] = {}
        for trial in _open(study, settings["space"]):
            _start(study, active, base, trial)
        while active or _count(study) < trials:
            while len(active) < processes and _count(study) < trials:
                trial = _next(study, sweep.name, settings["space"])
                _start(study, active, base, trial)
            if new := _unsubmitted(record, active):
                submit(new, launcher, processes)
            for number in _report_ended(study, record, active, settings["metric"]):
                del active[number]
            time.sleep(POLL)
        return _conclude(study, settings["metric"])


@contextmanager
def _search_lock(record: Record) -> Iterator[None]:
    """Let one process at a time run a search. The operating system releases the lock of a process that is killed."""
    with open(record.folder / ".search", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{record.home}: another process runs this search; wait for it, or end it") from error
        yield


def _checked(sweep: Sweep) -> dict[str, Any]:
    """The settings with defaults filled in. Raises UserError that names the wrong setting."""
    if not sweep.search:
        raise UserError(f"{sweep.name}: has no search:; python -m ragaf_exp.sweep submit runs its grid")
    for key in sweep.search:
        if key not in KEYS:
            raise UserError(f"{sweep.name}: search.{key}: unknown key; known are {', '.join(KEYS)}")
    settings = {"metric": "binding_accuracy", "direction": "maximize", "seed": 0, **sweep.search}
    if settings["direction"] not in ("maximize", "minimize"):
        raise UserError(f"{sweep.name}: search.direction={settings['direction']}: must be maximize or minimize")
    if isinstance(settings["seed"], bool) or not isinstance(settings["seed"], int) or not 0 <= settings["seed"] < 2**31:
        raise UserError(f"{sweep.name}: search.seed={settings['seed']}: must be a whole number from 0")
    if not isinstance(settings["metric"], str):
        raise UserError(f"{sweep.name}: search.metric={settings['metric']}: must be the name of a metric")
    space = settings.get("space")
    if not isinstance(space, dict) or not space:
        raise UserError(f"{sweep.name}: search.space: must map keys to lists or ranges")
    for key, values in space.items():
        if fault := _fault(values):
            raise UserError(f"{sweep.name}: search.space.{key}: {fault}")
        for value in values if isinstance(values, list) else ():
            as_hydra_override(f"{key}={hydra_value(value)}")
    return settings


def _fault(values: Any) -> str:
    """The error in the values of a key; empty if they are valid."""
    if isinstance(values, list) and values:
        plain = all(value is None or isinstance(value, str | int | float) for value in values)
        return "" if plain else "a value must be a number, text or null; lists and mappings cannot be searched"
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= set(RANGE):
        return "must be a list of values, or low and high [log, step]"
    for end in {"low", "high", "step"} & set(values):
        if isinstance(values[end], bool) or not isinstance(values[end], int | float) or not math.isfinite(values[end]):
            return f"{end}={values[end]}: must be a number, e.g. 1e-4"
    if not isinstance(values.get("log", False), bool):
        return f"log={values['log']}: must be true or false"
    try:
        _distribution(values)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


def _first(space: dict[str, Any]) -> list[str]:
    """One point of the space, from which the sweep's folder can be composed."""
    first = {key: values["low"] if isinstance(values, dict) else values[0] for key, values in space.items()}
    return [f"{key}={hydra_value(value)}" for key, value in first.items()]


def _distributions(space: dict[str, Any]) -> dict[str, Any]:
    return {key: _distribution(values) for key, values in space.items()}


def _distribution(values: list[Any] | dict[str, Any]) -> Any:
    """An Optuna distribution. Raises ValueError if the bounds contradict each other."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, list):
        return CategoricalDistribution(values)
    whole = all(isinstance(values.get(key, 1), int) for key in ("low", "high", "step"))
    return (IntDistribution if whole else FloatDistribution)(**values)


def _needs_optuna() -> None:
    if find_spec("optuna") is None:
        raise UserError("search: needs Optuna; pip install 'ragaf_exp[search]'")


def _study(record: Record, name: str, settings: dict[str, Any]) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = str(record.folder / "study.log")
    storage = optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    study = optuna.create_study(study_name=name, storage=storage, direction=settings["direction"], load_if_exists=True)
    # the study does not store its sampler, which with the first seed would repeat the values of the first trials
    study.sampler = optuna.samplers.TPESampler(seed=settings["seed"] + len(study.trials), constant_liar=True)
    return study


def _next(study: Any, name: str, space: dict[str, Any]) -> Any:
    """A new trial. Raises UserError if the study began with another space."""
    try:
        return study.ask(_distributions(space))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: search.space: not the one of the study ({reason}); give the sweep a new name") from error


def _open(study: Any, space: dict[str, Any]) -> list[Any]:
    """Unfinished trials of an earlier process. Those whose values were not all chosen before it was killed are pruned."""
    from optuna.trial import TrialState

    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    for trial in (trial for trial in unfinished if set(trial.params) != set(space)):
        study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
    return [trial for trial in unfinished if set(trial.params) == set(space)]


def _count(study: Any) -> int:
    """The number of trials that were or will be run."""
    from optuna.trial import TrialState

    return sum(trial.state is not TrialState.PRUNED for trial in study.get_trials(deepcopy=False))


def _start(study: Any, active: dict[int, Member], base: list[str], trial: Any) -> None:
    """Add a trial's member to the active ones; a trial with an invalid config has failed."""
    from optuna.trial import TrialState

    try:
        active[trial.number] = _member(base, trial.params)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        study.tell(trial.number, state=TrialState.FAIL)
        print(f"trial {trial.number}: invalid config: {explain(error)}", flush=True)


def _member(base: list[str], params: dict[str, Any]) -> Member:
    (member,) = compose_members([*base, *(f"{key}={hydra_value(value)}" for key, value in params.items())])
    return member


def _unsubmitted(record: Record, active: dict[int, Member]) -> list[Member]:
    submitted = record.members()
    return list({member.hash: member for member in active.values() if member.hash not in submitted}.values())


def _report_ended(study: Any, record: Record, active: dict[int, Member], metric: str) -> list[int]:
    """Report the members that have ended to the study; returns their trials."""
    from optuna.trial import TrialState

    now = {row.hash: row for row in rows(record)[0]}
    ended = []
    for number, member in active.items():
        row = now[member.hash]
        if row.state == "done" and (value := metric_of(row.path, metric)) is not None:
            study.tell(number, value)
        elif row.state in (*BAD, "done"):
            study.tell(number, state=TrialState.FAIL)
        else:
            continue
        ended.append(number)
        result = f"{metric} {value:.4g}" if row.state == "done" and value is not None else row.error or "no metric"
        print(f"trial {number}: {row.state}: {result}: {member.hash}", flush=True)
    return ended


def metric_of(run: Path, metric: str) -> float | None:
    """A metric of a run, None if it was not measured."""
    return metrics_of(run).get(metric, {}).get("value")


def _conclude(study: Any, metric: str) -> int:
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    failed = len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))
    print(f"{len(done)} trials measured, {failed} failed")
    if not done:
        return 1
    best = study.best_trial
    print(f"best {metric} {best.value:.4g}: " + " ".join(f"{key}={value}" for key, value in best.params.items()))
    return int(failed > 0)
