"""Stages: how they differ, and which of them a run has."""

from __future__ import annotations

import pytest

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Stage
from ragaf_exp.config.stages import FIRST, FIRST_PREFIX, IMAGES, LAST, STAGES, chain, last_stage, trained


@pytest.fixture(scope="module")
def configs():
    return {option: compose_config([f"stage={option}"]) for option in ("both", "coarse", "refine")}


@pytest.mark.parametrize(
    ("option", "trains", "has", "last"),
    [("both", ["coarse", "refine"], ["coarse", "refine"], LAST), ("coarse", ["coarse"], ["coarse"], FIRST),
     ("refine", ["refine"], ["coarse", "refine"], LAST)],
)  # fmt: skip
def test_a_run_has_the_stages_that_it_trains_and_those_that_they_start_from(option, trains, has, last, configs):
    cfg = configs[option]
    assert trained(cfg) == trains and chain(cfg) == has and last_stage(cfg) is last


def test_the_order_of_the_override_does_not_matter():
    assert trained(compose_config(["stage.run=[refine,coarse]"])) == ["coarse", "refine"]


def test_every_stage_starts_from_an_earlier_one_and_has_settings():
    numbers = {name: stage.number for name, stage in STAGES.items()}
    assert list(numbers.values()) == list(range(1, len(STAGES) + 1))
    assert all(numbers[s.starts_from] < s.number for s in STAGES.values() if s.starts_from)
    assert set(STAGES) <= set(Stage.__dataclass_fields__)


def test_names_of_samples_and_figures_are_those_of_run_folders():
    assert IMAGES == ("stage1", "stage2") and FIRST_PREFIX == "stage1/" and LAST.title == "Stage 2"


def test_settings_are_those_of_the_config_or_the_default(configs):
    cfg = compose_config(["stage.coarse.scale=2", "stage.refine.strength=0.4"])
    assert (FIRST.scale(cfg), LAST.scale(cfg)) == (2, 1)
    assert LAST.setting(cfg, "strength") == 0.4 and FIRST.setting(cfg, "strength", 1.0) == 1.0
    assert not LAST.takes_start(cfg) and LAST.takes_start(compose_config(["stage.refine.coarse_input=true"]))
