"""Hyper-parameter search with Optuna over a sweep's members: the same run folders, snapshot and status.

Not hydra-optuna-sweeper: its newest release, 1.3.0, asks for optuna<3, and the launching process holds its state.
Here the study is a journal in the sweep's folder. The same command goes on with it, whatever became of the one before.
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
from ragaf_exp.sweep.definition import Sweep, word
from ragaf_exp.sweep.ledger import Record
from ragaf_exp.sweep.members import Member, compose_members
from ragaf_exp.sweep.reading import figures
from ragaf_exp.sweep.status import BAD, rows
from ragaf_exp.sweep.submit import submit

KEYS = ("metric", "direction", "space", "seed")
RANGE = ("low", "high", "log", "step")
POLL = 2.0  # seconds between looks at the members


def search(sweep: Sweep, words: list[str], launcher: str, processes: int, trials: int) -> int:
    """Run trials until the study has `trials` of them; exit status 1 where none was measured.

    A member that fails is a failed trial. Trials that an earlier call began, and whose members are queued or done, are
    taken up.
    """
    _needs_optuna()
    settings = _checked(sweep)
    if trials < 1:
        raise UserError(f"trials={trials}: must be at least 1")
    base = [*sweep.words, *words]
    record = Record(compose_members([*base, *_first(settings["space"])])[0].home)
    record.folder.mkdir(parents=True, exist_ok=True)
    with _alone(record):
        study = _study(record, sweep.name, settings)
        going: dict[int, Member] = {}
        for trial in _open(study, settings["space"]):
            _take_up(study, going, base, trial)
        while going or _count(study) < trials:
            while len(going) < processes and _count(study) < trials:
                trial = _next(study, sweep.name, settings["space"])
                _take_up(study, going, base, trial)
            if new := _unsubmitted(record, going):
                submit(new, launcher, processes)
            for number in _tell(study, record, going, settings["metric"]):
                del going[number]
            time.sleep(POLL)
        return _conclude(study, settings["metric"])


@contextmanager
def _alone(record: Record) -> Iterator[None]:
    """One process at a time tells a study of its trials. The system lets go for a process that is killed."""
    with open(record.folder / ".search", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{record.home}: another process leads this search; wait for it, or end it") from error
        yield


def _checked(sweep: Sweep) -> dict[str, Any]:
    """The settings with their defaults; UserError naming what is wrong."""
    if not sweep.search:
        raise UserError(f"{sweep.name}: has no search:; python -m ragaf_exp.sweep submit runs its grid")
    for key in sweep.search:
        if key not in KEYS:
            raise UserError(f"{sweep.name}: search.{key}: unknown key; known are {', '.join(KEYS)}")
    found = {"metric": "binding_accuracy", "direction": "maximize", "seed": 0, **sweep.search}
    if found["direction"] not in ("maximize", "minimize"):
        raise UserError(f"{sweep.name}: search.direction={found['direction']}: must be maximize or minimize")
    if isinstance(found["seed"], bool) or not isinstance(found["seed"], int) or not 0 <= found["seed"] < 2**31:
        raise UserError(f"{sweep.name}: search.seed={found['seed']}: must be a whole number from 0")
    if not isinstance(found["metric"], str):
        raise UserError(f"{sweep.name}: search.metric={found['metric']}: must be a metric's name")
    space = found.get("space")
    if not isinstance(space, dict) or not space:
        raise UserError(f"{sweep.name}: search.space: must give keys their lists or ranges")
    for key, values in space.items():
        if fault := _fault(values):
            raise UserError(f"{sweep.name}: search.space.{key}: {fault}")
        for value in values if isinstance(values, list) else ():
            as_hydra_override(f"{key}={word(value)}")
    return found


def _fault(values: Any) -> str:
    """What is wrong with the values of a key; empty where nothing is."""
    if isinstance(values, list) and values:
        plain = all(value is None or isinstance(value, str | int | float) for value in values)
        return "" if plain else "a value must be a number, text or null; lists and mappings cannot be searched"
    if not isinstance(values, dict) or not {"low", "high"} <= set(values) <= set(RANGE):
        return "must be a list of values, or low and high [log, step]"
    for end in {"low", "high", "step"} & set(values):
        if isinstance(values[end], bool) or not isinstance(values[end], int | float) or not math.isfinite(values[end]):
            return f"{end}={values[end]}: must be a number, as 1e-4"
    if not isinstance(values.get("log", False), bool):
        return f"log={values['log']}: must be true or false"
    try:
        _distribution(values)
    except ValueError as error:
        return " ".join(str(error).split())
    return ""


def _first(space: dict[str, Any]) -> list[str]:
    """One point of the space, from which to learn where the sweep's folder is."""
    return [f"{key}={word(values['low'] if isinstance(values, dict) else values[0])}" for key, values in space.items()]


def _distributions(space: dict[str, Any]) -> dict[str, Any]:
    return {key: _distribution(values) for key, values in space.items()}


def _distribution(values: list[Any] | dict[str, Any]) -> Any:
    """Optuna's, which raises ValueError for bounds that contradict each other."""
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
    # a sampler is not kept in the study: with its first seed it would draw again what it drew for the first trials
    study.sampler = optuna.samplers.TPESampler(seed=settings["seed"] + len(study.trials), constant_liar=True)
    return study


def _next(study: Any, name: str, space: dict[str, Any]) -> Any:
    """A new trial. UserError where the space is not the one that the study began with."""
    try:
        return study.ask(_distributions(space))
    except ValueError as error:
        why = " ".join(str(error).split())
        raise UserError(f"{name}: search.space: not the one of the study ({why}); give the sweep a new name") from error


def _open(study: Any, space: dict[str, Any]) -> list[Any]:
    """Trials that an earlier process began. One that was killed while it chose a trial's values left nothing to run."""
    from optuna.trial import TrialState

    found = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    for trial in (trial for trial in found if set(trial.params) != set(space)):
        study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
    return [trial for trial in found if set(trial.params) == set(space)]


def _count(study: Any) -> int:
    """Of trials that were run, or are to be."""
    from optuna.trial import TrialState

    return sum(trial.state is not TrialState.PRUNED for trial in study.get_trials(deepcopy=False))


def _take_up(study: Any, going: dict[int, Member], base: list[str], trial: Any) -> None:
    """Have a trial's member run; a trial whose config is refused has failed."""
    from optuna.trial import TrialState

    try:
        going[trial.number] = _member(base, trial.params)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        study.tell(trial.number, state=TrialState.FAIL)
        print(f"trial {trial.number}: refused: {explain(error)}", flush=True)


def _member(base: list[str], params: dict[str, Any]) -> Member:
    (member,) = compose_members([*base, *(f"{key}={word(value)}" for key, value in params.items())])
    return member


def _unsubmitted(record: Record, going: dict[int, Member]) -> list[Member]:
    known = record.members()
    return list({member.hash: member for member in going.values() if member.hash not in known}.values())


def _tell(study: Any, record: Record, going: dict[int, Member], metric: str) -> list[int]:
    """Tell the study of members that are over; returns their trials."""
    from optuna.trial import TrialState

    now = {row.hash: row for row in rows(record)[0]}
    over = []
    for number, member in going.items():
        row = now[member.hash]
        if row.state == "done" and (value := figure(row.path, metric)) is not None:
            study.tell(number, value)
        elif row.state in (*BAD, "done"):
            study.tell(number, state=TrialState.FAIL)
        else:
            continue
        over.append(number)
        told = f"{metric} {value:.4g}" if row.state == "done" and value is not None else row.error or "no figure"
        print(f"trial {number}: {row.state}: {told}: {member.hash}", flush=True)
    return over


def figure(run: Path, metric: str) -> float | None:
    """A run's figure, None where it was not measured."""
    return figures(run).get(metric, {}).get("value")


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
