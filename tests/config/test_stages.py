"""Stages: what the config says of them, which of them a run has, and which configs are refused."""

from __future__ import annotations

import pytest

from ragaf_exp.config.added import STAGE_KEYS, without_added
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.config.stages import IMAGES, chain, stage_of, title_of, trained
from ragaf_exp.core.errors import UserError

DETAIL = "+stage.detail={starts_from: refine, regions: true, steps: 20, strength: 0.5}"
THREE = "stage.run=[coarse,refine,detail]"


def names(stages) -> list[str]:
    return [stage.name for stage in stages]


@pytest.mark.parametrize(
    ("overrides", "trains", "has"),
    [
        (["stage=both"], ["coarse", "refine"], ["coarse", "refine"]),
        (["stage=coarse"], ["coarse"], ["coarse"]),
        (["stage=refine"], ["refine"], ["coarse", "refine"]),
        (["stage=refine", "stage.refine.starts_from=null"], ["refine"], ["refine"]),
        ([THREE, DETAIL], ["coarse", "refine", "detail"], ["coarse", "refine", "detail"]),
        (["stage.run=[detail]", DETAIL], ["detail"], ["coarse", "refine", "detail"]),
        (["stage.run=[coarse,refine]", DETAIL], ["coarse", "refine"], ["coarse", "refine"]),
        (["stage.run=[plain]", "stage.plain.starts_from=null"], ["plain"], ["plain"]),
    ],
)
def test_a_run_has_the_stages_that_it_trains_and_those_that_they_start_from(overrides, trains, has):
    cfg = compose_config(overrides)
    assert names(trained(cfg)) == trains and names(chain(cfg)) == has
    assert [stage.number for stage in chain(cfg)] == list(range(1, len(has) + 1))
    assert {stage.first for stage in chain(cfg)} == {has[0]}


def test_the_order_of_the_override_does_not_matter():
    assert names(trained(compose_config(["stage.run=[detail,refine,coarse]", DETAIL]))) == ["coarse", "refine", "detail"]


def test_names_of_samples_and_figures_are_those_of_run_folders():
    stages = chain(compose_config([THREE, DETAIL]))
    assert [stage.image for stage in stages] == ["stage1", "stage2", "stage3"] == list(IMAGES[:3])
    assert stages[1].title == title_of("stage2") == "Stage 2"


def test_a_further_stage_has_the_settings_of_its_config_and_the_defaults():
    detail = stage_of(compose_config([THREE, DETAIL]), "detail")
    assert (detail.settings["steps"], detail.strength, detail.scale, detail.region_steps) == (20, 0.5, 1, 0)
    assert detail.has_regions and not detail.takes_start and detail.recolour == 0


def test_what_has_no_use_in_a_stage_has_no_effect():
    alone = stage_of(compose_config(["stage=refine", "stage.refine.starts_from=null"]), "refine")
    assert alone.settings["strength"] == 0.9 and alone.strength == 1 and alone.recolour == 0
    plain = stage_of(compose_config(["stage.refine.regions=false"]), "refine")
    assert plain.settings["region_steps"] == 500 and plain.region_steps == 0


def test_defaults_of_the_later_keys_are_left_out_of_the_hash():
    cfg = compose_config([])
    given = ["stage.refine.starts_from=coarse", "stage.refine.regions=true", "stage.coarse.regions=false"]
    assert config_hash(compose_config(given)) == config_hash(cfg) == "0d34de49f67e"
    hashed = without_added({"stage": {name: dict(cfg.stage[name]) for name in STAGE_KEYS}})["stage"]
    assert {name: set(keys) for name, keys in STAGE_KEYS.items()} == {name: set(hashed[name]) for name in hashed}
    for other in ("stage.refine.regions=false", "stage.coarse.scale=2", "stage.coarse.strength=0.5"):
        assert config_hash(compose_config([other])) != config_hash(cfg), other


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["stage.run=[coarse,refin]"], r"stage.run\[1\]=refin: must be one of coarse, refine"),
        (["stage.run=[coarse,detail]"], r"stage.run\[1\]=detail: must be one of coarse, refine; a further stage is"),
        (["stage.detail={regions: true}"], "stage.detail: unknown stage; .* states stage.detail.starts_from"),
        (["stage.refin.steps=3"], "stage.refin: unknown stage; known are coarse, refine"),
        (["stage.detail={starts_from: refine, step: 3}"], "stage.detail.step: unknown key; known are starts_from"),
        (["stage.detail={starts_from: refine, steps: 0}"], "stage.detail.steps=0: must be from 1"),
        (["stage.detail={starts_from: refine, steps: many}"], "stage.detail.steps"),
        (["stage.refine.starts_from=other"], "stage.refine.starts_from=other: must be one of coarse, refine, or null"),
        (["stage.coarse.starts_from=refine"], "stage.coarse.starts_from=refine: a circle; set starts_from=null"),
        (["stage.coarse.starts_from=coarse"], "stage.coarse.starts_from=coarse: a circle"),
        (["stage.refine.starts_from=null"], r"stage.run=\[coarse,refine\]: refine does not start from coarse; leave"),
        ([THREE, "stage.detail={starts_from: coarse}"], "detail does not start from refine; .*detail.starts_from=refine"),
        (["stage.run=[coarse,detail]", DETAIL], "refine lies between stages that run; add it"),
        ([THREE, "stage.detail.starts_from=refine"], "detail.regions=false: it starts from refine, which has regions"),
        (["stage.Detail={starts_from: refine}"], "stage.Detail: no name of a stage; take small letters"),
        (["stage.regions={starts_from: refine}"], "stage.regions: no name of a stage; .* none of regions, validation"),
        (["stage=refine", "stage.refine.starts_from=null", "stage.refine.coarse_input=true"],
         "stage.refine.coarse_input=true: it starts from noise"),
        ([THREE, DETAIL, "stage.detail.coarse_input=true"], "detail.coarse_input=true: .* and refine starts from coarse"),
        (["stage.coarse.scale=2", "stage.refine.coarse_input=true"], "the latent of coarse has another size"),
        (["stage.refine.scale=2"], "stage.refine.scale=2: must divide the scale of coarse, 1"),
        (["stage.run=[]"], "stage.run=.*: must hold 1 to 9 values"),
    ],
)  # fmt: skip
def test_a_config_whose_stages_are_no_chain_is_refused_in_one_line(overrides, says):
    with pytest.raises(UserError, match=says) as refusal:
        compose_config(overrides)
    assert "\n" not in str(refusal.value)
