"""Odd values of every key: refused in one line that names the key, or built; no traceback, no hang.

A sample is tested each time (RAGAF_FUZZ=SEED for another), all of them by `make test ARGS='-m slow'`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from odd_values import Odd, every_odd_value, fields, is_number
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assemble import assemble, make_model
from ragaf_exp.config.compose import CONF, composed
from ragaf_exp.config.ranges import Range, limit_of
from ragaf_exp.config.schema import NESTED
from ragaf_exp.config.validate import validate
from ragaf_exp.errors import UserError
from ragaf_exp.runfolder import RunFolder

SEED = int(os.environ.get("RAGAF_FUZZ", 0))
SAMPLE = 150
BUILT = 24  # of the sample that pass: so many are built, too
KEY = {folder: key for key, folder in NESTED.items()}


@pytest.fixture(scope="module")
def small(tiny) -> dict:
    return OmegaConf.to_container(composed(tiny))


def changed(small: dict, odd: Odd) -> DictConfig:
    """The tiny config with an option and its odd value."""
    cfg = OmegaConf.create(small)
    if odd.option:
        group, _, name = odd.option.partition("=")
        option = OmegaConf.load(CONF / group / f"{name}.yaml")
        cfg[KEY.get(group, group)] = OmegaConf.create({k: v for k, v in option.items() if "${" not in str(v)})
    OmegaConf.update(cfg, odd.key, odd.value, merge=False)
    return cfg


def refusal(call) -> str | None:
    """The one line of a refusal; None where there is none. What else is raised is a failure."""
    try:
        call()
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


def test_every_number_has_a_lower_and_an_upper_bound_with_a_reason():
    without = [f"{option} {key}" for (option, key), kind in fields().items()
               if is_number(kind) and not isinstance(limit_of(kind), Range)]  # fmt: skip
    assert not without, without
    limits = [limit for kind in fields().values() if isinstance(limit := limit_of(kind), Range)]
    assert all(-1e12 < limit.low < limit.high < 1e12 and len(limit.reason) > 4 for limit in limits)


def test_a_sample_of_odd_values_is_refused_or_built(small, tmp_path):
    sample = random.Random(SEED).sample(every_odd_value(), SAMPLE)
    taken = [odd for odd in sample if checked(small, odd)]
    for index, odd in enumerate(taken[:BUILT]):
        builds(small, odd, tmp_path / str(index))


def checked(small: dict, odd: Odd) -> bool:
    """Whether the check of the config takes the value; what it refuses, it names."""
    try:
        line = refusal(lambda: validate(changed(small, odd)))
    except Exception as error:
        raise AssertionError(f"{odd}: {type(error).__name__}: {error}") from error
    assert line is None or odd.key.split(".")[0] in line, f"{odd}: {line}"
    return line is None


def builds(small: dict, odd: Odd, folder: Path) -> None:
    """The parts of a run are built, or refused."""
    try:
        folder.mkdir()
        refusal(lambda: built(validate(changed(small, odd)), folder))
    except Exception as error:
        raise AssertionError(f"{odd}: {type(error).__name__}: {error}") from error
