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
from pathlib import Path
from typing import Any

from ragaf_exp.errors import UserError
from ragaf_exp.sweep.definition import Sweep, word
from ragaf_exp.sweep.members import Member, compose_members
from ragaf_exp.sweep.record import Record, read_loosely
from ragaf_exp.sweep.submit import submit
from ragaf_exp.sweep.truth import BAD, rows

KEYS = ("metric", "direction", "space", "seed")
RANGE = ("low", "high", "log", "step")
POLL = 2.0  # seconds between looks at the members


def search(sweep: Sweep, words: list[str], launcher: str, processes: int, trials: int) -> int:
    """Run trials until the study has `trials` of them; exit status 1 where none was measured.

    A member that fails is a failed trial. Trials that an earlier call began, and whose members are queued or done, are
    taken up.
    """
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
                trial = study.ask(_distributions(settings["space"]))
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
    space = found.get("space")
    if not isinstance(space, dict) or not space:
        raise UserError(f"{sweep.name}: search.space: must give keys their lists or ranges")
    for key, values in space.items():
        ranged = isinstance(values, dict) and {"low", "high"} <= set(values) <= set(RANGE)
        if not ranged and not (isinstance(values, list) and values):
            raise UserError(f"{sweep.name}: search.space.{key}: must be a list of values, or low and high [log, step]")
    return found


def _first(space: dict[str, Any]) -> list[str]:
    """One point of the space, from which to learn where the sweep's folder is."""
    return [f"{key}={word(values['low'] if isinstance(values, dict) else values[0])}" for key, values in space.items()]


def _distributions(space: dict[str, Any]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, values in space.items():
        if isinstance(values, list):
            found[key] = CategoricalDistribution(values)
            continue
        whole = all(isinstance(values[end], int) for end in ("low", "high"))
        found[key] = (IntDistribution if whole else FloatDistribution)(**values)
    return found


def _study(record: Record, name: str, settings: dict[str, Any]) -> Any:
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    except ImportError as error:
        raise UserError("search: needs Optuna; pip install 'ragaf_exp[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = str(record.folder / "study.log")
    storage = optuna.storages.JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))
    study = optuna.create_study(study_name=name, storage=storage, direction=settings["direction"], load_if_exists=True)
    # a sampler is not kept in the study: with its first seed it would draw again what it drew for the first trials
    study.sampler = optuna.samplers.TPESampler(seed=settings["seed"] + len(study.trials), constant_liar=True)
    return study


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
    except UserError as error:
        study.tell(trial.number, state=TrialState.FAIL)
        print(f"trial {trial.number}: refused: {error}", flush=True)


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
    value = read_loosely(run / "metrics.json").get("metrics", {}).get(metric, {}).get("value")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


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
