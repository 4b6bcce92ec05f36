"""Odd values of every key: refused in one line that names the key, or built; no traceback, no hang.

A sample is tested each time (RAGAF_FUZZ=SEED for another). `make test ARGS='-m slow'` tests all of them, and trains with
those that nothing refuses, several keys in one run: most of an hour.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from odd_values import Odd, every_odd_value, fields, is_number, odd_values
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.command_line import ERRNO_HINTS
from ragaf_exp.config.compose import CONF, compose_config
from ragaf_exp.config.ranges import Range, limit_of
from ragaf_exp.config.schema import NESTED
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.folder import RunFolder

SEED = int(os.environ.get("RAGAF_FUZZ", 0))
SAMPLE = 120
BUILT = 10  # of those that pass the check: so many are built, too
TRAINED = ("seed", "loss", "optim", "task", "stage", "eval", "sampler", "diffusion", "fusion", "injection", "ragaf")
LARGE = 100  # numbers beyond it are not trained with: they are steps, batches, widths
TOGETHER = 8  # so many keys have an odd value in one run
KEY = {folder: key for key, folder in NESTED.items()}


@pytest.fixture(scope="module")
def small(tiny) -> dict:
    without_pictures = [override for override in tiny if not override.startswith("eval.pictures=")]  # half of a run's time
    return OmegaConf.to_container(compose_config([*without_pictures, "eval.pictures=0"]))


def changed(small: dict, *odds: Odd) -> DictConfig:
    """The tiny config with odd values, and with the options that have their keys."""
    cfg = OmegaConf.create(small)
    for odd in odds:
        group, _, name = odd.option.partition("=")
        option, key = OmegaConf.load(CONF / group / f"{name}.yaml") if group else None, KEY.get(group, group)
        if option is not None and option._target_ != cfg[key]._target_:
            cfg[key] = {k: v for k, v in OmegaConf.to_container(option).items() if "${" not in str(v)}
        OmegaConf.update(cfg, odd.key, odd.value, merge=False)
    return cfg


def refusal(call: Callable[[], object]) -> str | None:
    """The one line of a refusal; None where there is none. What else is raised is a failure."""
    try:
        call()
    except OSError as error:
        assert error.errno in ERRNO_HINTS, error
        return f"{error.filename}: {ERRNO_HINTS[error.errno]}"  # as command lines say it
    except UserError as error:
        line = str(error)
        assert line and "\n" not in line and len(line) < 10_000
        return line
    return None


def built(cfg: DictConfig, folder: Path) -> None:
    """Everything of a run but its weights."""
    parts = assemble(cfg, RunFolder(folder))
    with torch.device("meta"):
        for stage in cfg.stage.run:
            make_model(parts, stage)


def trained(cfg: DictConfig, folder: Path) -> None:
    """A whole run."""
    cfg.runs = str(folder)
    run(cfg)


def groups() -> list[tuple[tuple[str, str], ...]]:
    """(option, key) of all fields, in groups of one option whose odd values are trained with together."""
    by_option: dict[str, list[tuple[str, str]]] = {}
    for option, key in fields():
        by_option.setdefault(option, []).append((option, key))
    return [tuple(keys[i : i + TOGETHER]) for keys in by_option.values() for i in range(0, len(keys), TOGETHER)]


def is_trained(odd: Odd) -> bool:
    """Whether a value that the check of the config accepts is trained with, rather than built."""
    large = isinstance(odd.value, int | float) and odd.value > LARGE
    return odd.key.split(".")[0] in TRAINED and not large


def train_together(small: dict, odds: Sequence[Odd], folder: Path) -> None:
    """A whole run with several odd values. Where it is refused or fails, each half is trained with separately."""
    folder.mkdir()
    try:
        line = refusal(lambda: trained(validate(changed(small, *odds)), folder))
        failure = None
    except Exception as error:
        failure = AssertionError(f"{', '.join(map(str, odds))}: {type(error).__name__}: {error}")
        failure.__cause__ = error
    if len(odds) > 1 and (failure or line):
        for half in (0, 1):
            train_together(small, odds[half * len(odds) // 2 : (half + 1) * len(odds) // 2], folder / f"half{half}")
    if failure:
        raise failure


def test_every_number_has_a_lower_and_an_upper_bound_with_a_reason():
    without = [f"{option} {key}" for (option, key), kind in fields().items()
               if is_number(kind) and not isinstance(limit_of(kind), Range)]  # fmt: skip
    assert not without, without
    limits = [limit for kind in fields().values() if isinstance(limit := limit_of(kind), Range)]
    assert all(-1e12 < limit.low < limit.high < 1e12 and len(limit.reason) > 4 for limit in limits)


@pytest.mark.long
def test_a_sample_of_odd_values_is_refused_or_built(small, tmp_path):
    sample = random.Random(SEED).sample(every_odd_value(), SAMPLE)
    taken = [odd for odd in sample if checked(small, odd)]
    for index, odd in enumerate(taken[:BUILT]):
        attempt(built, small, odd, tmp_path / str(index))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("keys", groups(), ids=lambda keys: " ".join(keys[0]))
def test_all_odd_values_are_refused_or_trained_with(keys, small, tmp_path):
    taken = [[odd for value in odd_values(fields()[key]) if checked(small, odd := Odd(*key, value))] for key in keys]
    for index, odd in enumerate(odd for odds in taken for odd in odds if not is_trained(odd)):
        attempt(built, small, odd, tmp_path / f"built{index}")
    for index, row in enumerate(zip_longest(*([odd for odd in odds if is_trained(odd)] for odds in taken))):
        train_together(small, [odd for odd in row if odd], tmp_path / f"trained{index}")


def checked(small: dict, odd: Odd) -> bool:
    """Whether the check of the config accepts the value; a refusal must name the key."""
    try:
        line = refusal(lambda: validate(changed(small, odd)))
    except Exception as error:
        raise AssertionError(f"{odd}: {type(error).__name__}: {error}") from error
    assert line is None or odd.key.split(".")[0] in line, f"{odd}: {line}"
    return line is None


def attempt(work: Callable[[DictConfig, Path], None], small: dict, odd: Odd, folder: Path) -> None:
    """Do the work, or have it refused in one line."""
    try:
        folder.mkdir()
        refusal(lambda: work(validate(changed(small, odd)), folder))
    except Exception as error:
        raise AssertionError(f"{odd}: {type(error).__name__}: {error}") from error
