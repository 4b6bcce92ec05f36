"""Settings that a later phase would refuse are refused before the first step."""

from __future__ import annotations

import pytest

from eval.networks import Networks
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Eval
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.run import command_line
from ragaf_exp.training.trainer import Trainer, check_shares


@pytest.mark.parametrize("seed", [-1, 2**63, -(2**70)])
def test_seeds_that_a_later_phase_can_not_use(seed, refused, tiny, tmp_path):
    says = (f"seed={seed}", "must be from 0 to 4,294,967,295")
    refused(command_line, *tiny, f"seed={seed}", f"runs={tmp_path / 'runs'}", says=says)
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eval.metrics=[fid]", "eval.inception=/none.pt"], "eval.inception=/none.pt: no such file"),
        (["eval.metrics=[kid]", "eval.resize=big"], "eval.resize=big: must be one of"),
        (["eval.metrics=[fd_squeezenet]", "eval.squeezenet={}/file"], "eval.squeezenet="),
        (["eval.metrics=[lpips]", "eval.lpips_backbone=/none.pth"], "eval.lpips_backbone=/none.pth"),
        (["eval.metrics=[clip]", "eval.clip_model=ViT-B-23"], "eval.clip_model=ViT-B-23"),
        (["eval.metrics=[region_clip]", "eval.clip_pretrained=nobody"], "eval.clip_pretrained=nobody"),
        (["eval.metrics=[clip]", "eval.clip_config=/none.json"], "eval.clip_config=/none.json"),
        (["eval.edges=pidinet", "eval.pidinet=/none.pth"], "/none.pth: no such file"),
    ],
)
def test_what_the_evaluation_would_refuse_costs_no_training(words, says, tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no weights")
    monkeypatch.setattr(Trainer, "fit", lambda *args: pytest.fail("it trained"))
    words = [word.format(tmp_path) for word in words]
    with pytest.raises(UserError, match=says):
        run(compose_config([*tiny, *words, f"runs={tmp_path / 'runs'}"]))
    assert not list((tmp_path / "runs").rglob("status.json"))


def test_a_share_of_stage_2_is_checked_before_stage_1(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("ragaf_exp.distributed.collectives.count", lambda: 4)
    monkeypatch.setattr(Trainer, "fit", lambda *args: pytest.fail("it trained"))
    with pytest.raises(UserError, match="stage.refine.region_batch=6: must be a multiple of the 4 processes"):
        run(compose_config([*tiny, "stage.refine.region_batch=6", f"runs={tmp_path}"]))
    assert check_shares.__doc__


def test_downloads_are_left_to_the_metrics_that_need_them(monkeypatch):
    for name in ("_network", "_once"):
        monkeypatch.setattr(Networks, name, lambda *args: pytest.fail("a network was loaded"))
    Networks(Eval(metrics=["fd_squeezenet", "fid", "kid", "lpips", "clip"])).check()
    Networks(Eval(metrics=[], inception="/none.pt", lpips_backbone="/none", clip_model="none")).check()
