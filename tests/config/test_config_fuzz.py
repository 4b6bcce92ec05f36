"""Odd values of every key: refused in one line that names the key, or built; no traceback, no hang.

A sample is tested each time (RAGAF_FUZZ=SEED for another). `make test ARGS='-m slow'` tests all of them, and trains with
those that nothing refuses: most of an hour.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
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
KEY = {folder: key for key, folder in NESTED.items()}


@pytest.fixture(scope="module")
def small(tiny) -> dict:
    return OmegaConf.to_container(compose_config(tiny))


def changed(small: dict, odd: Odd) -> DictConfig:
    """The tiny config with the odd value, and with the option that has its key."""
    cfg = OmegaConf.create(small)
    if odd.option:
        group, _, name = odd.option.partition("=")
        option, key = OmegaConf.load(CONF / group / f"{name}.yaml"), KEY.get(group, group)
        if option._target_ != small[key]["_target_"]:
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
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("option", "key"), fields())
def test_all_odd_values_are_refused_or_trained_with(option, key, small, tmp_path):
    for index, value in enumerate(odd_values(fields()[option, key])):
        odd, folder = Odd(option, key, value), tmp_path / str(index)
        if not checked(small, odd):
            continue
        large = isinstance(value, int | float) and value > LARGE
        attempt(trained if key.split(".")[0] in TRAINED and not large else built, small, odd, folder)


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
