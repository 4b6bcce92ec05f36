"""Settings that can hardly learn are warned of in one line; the defaults and every option of conf/ are not."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.doubts import doubts
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.folder import RunFolder


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["loss.diffusion=0"], ("loss.diffusion=0", "set loss.diffusion=1")),
        (["stage.run=[coarse]", "stage.coarse.steps=40", "optim.warmup=50"], ("optim.warmup=50", "40 steps", "warmup=4")),
        (["stage.refine.region_steps=0", "stage.refine.steps=50", "optim.warmup=50"], ("optim.warmup=50", "refine")),
        (["stage.coarse.lr=1", "optim.weight_decay=0.5"], ("optim.weight_decay=0.5", "50%")),
        (["task.caption_dropout=1"], ("task.caption_dropout=1", "never shows a caption")),
        (["task.sketch_dropout=1"], ("task.sketch_dropout=1", "never shows a sketch")),
        (["backbone.head_width=0"], ("backbone.head_width=0", "4 pixels")),
    ],
)
def test_each_warning_is_one_line_with_the_remedy(overrides, says):
    lines = doubts(compose_config(overrides))
    assert len(lines) == 1 and "\n" not in lines[0] and all(text in lines[0] for text in says), lines


@pytest.mark.parametrize("overrides", [[], ["+experiment=smoke"], ["optim=adamw"], ["stage=coarse"], ["memory=4gb"]])
def test_shipped_options_give_no_warning(overrides):
    result = doubts(compose_config(overrides))
    assert result == [] or overrides == ["+experiment=smoke"] and all("optim.warmup" in line for line in result)


def test_a_run_warns_before_it_trains(tiny, tmp_path, caplog, monkeypatch):
    def ends(cfg, folder):
        raise UserError("before training")

    monkeypatch.setattr("ragaf_exp.experiments.training.continue_sibling", ends)
    with pytest.raises(UserError, match="before training"):
        run(compose_config([*tiny, f"runs={tmp_path}", "stage.run=[coarse]", "stage.coarse.steps=2", "optim.warmup=9"]))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("optim.warmup=9" in line for line in lines), lines


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["injection.points=[]"], ("injection.points=[]", "injection.words=true")),
        (["text.width=8192", "text.layers=96"], ("parameters take", "GiB", "memory.force=true")),
    ],
)
def test_settings_without_effect_or_that_do_not_fit_are_refused(overrides, says, tiny, tmp_path):
    with pytest.raises(UserError) as refusal:
        assemble(compose_config([*tiny, *overrides]), RunFolder(tmp_path))
    assert "\n" not in str(refusal.value) and all(text in str(refusal.value) for text in says)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stage.batch=2000000000", ("stage.batch=2000000000", "from 1 to 65,536")),
        ("seed=-1", ("seed=-1", "from 0 to 4,294,967,295")),
        ("loss.region_latent=1e30", ("loss.region_latent=1e+30", "10000")),
        ("ragaf.temperature=1e30", ("ragaf.temperature=1e+30", "uniform")),
        ("optim.warmup=100000000000000000000", ("optim.warmup", "10,000,000")),
        ("eval.resize='$HOME'", ("eval.resize=$HOME", "clean, legacy_tensorflow")),
        ("optim.betas=[0.9,1.0]", ("optim.betas[1]=1.0", "below 1")),
        ("stage.run=[coarse,coarse]", ("stage.run", "twice")),
        ("backbone.widths=[[32],64]", ("backbone.widths[0]", "int")),
        ("text.vocabulary=2000000000", ("text.vocabulary", "262,144")),
    ],
)
def test_a_range_is_reported_with_its_reason(override, says):
    with pytest.raises(UserError) as refusal:
        compose_config([override])
    assert "\n" not in str(refusal.value) and all(text in str(refusal.value) for text in says), str(refusal.value)


def test_the_ends_of_a_range_are_in_it():
    cfg = compose_config(["stage.batch=65536", "sampler.guidance=0", "optim.ema=1", "seed=4294967295"])
    assert OmegaConf.select(cfg, "stage.batch") == 65536 and cfg.seed == 4294967295
