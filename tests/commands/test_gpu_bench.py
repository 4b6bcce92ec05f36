"""The benchmark of training steps on a GPU, rehearsed on the processor with small networks."""

from __future__ import annotations

import pytest
import torch
from tiny_sd import save_sd

from ragaf_exp.commands.benches import gpu
from ragaf_exp.commands.benches.gpu import RandomStep, diffusers_rows, diffusers_step, step_rows

pytestmark = pytest.mark.long

SMALL = """data.size=64 stage.batch=2 stage.accumulate=1 stage.refine.region_batch=2 ragaf.width=32 ragaf.heads=2
    ragaf.layers=1 hint.width=16 codec.weights=none memory.force=true memory.precision=no""".split()


@pytest.fixture(scope="module")
def profile(tmp_path_factory) -> list[str]:
    return ["memory=16gb", *SMALL, f"backbone.source={save_sd(tmp_path_factory.mktemp('sd') / 'sd')}"]


@pytest.fixture(autouse=True)
def two_turns(monkeypatch):
    monkeypatch.setattr(gpu, "TURNS", 2)


def test_a_profiles_step_is_timed_with_both_kinds_of_attention(profile):
    names = [row["name"] for row in step_rows("16gb", profile, "cpu")]
    assert names == ["gpu/16gb/step", "gpu/16gb/attention"]


def test_a_step_trains_what_the_profile_says_and_is_planned(profile):
    step = RandomStep(profile, -1, "cpu")
    before = {name: value.clone() for name, value in step.trainer.bare.named_parameters()}
    step()
    changed = {name for name, value in step.trainer.bare.named_parameters() if not torch.equal(value, before[name])}
    assert any("injection" in name for name in changed) and not any("backbone" in name for name in changed)
    assert step.items == 2 and 0 < step.planned() < 3


def test_diffusers_step_trains_the_same_network(profile):
    words = [word for word in profile if not word.startswith("hint.width")]
    overrides = [*words, "hint=controlnet", "hint.channels=[4,8,8,8]"]
    (row,) = diffusers_rows(overrides, "cpu")
    assert row["name"] == "gpu/controlnet/step" and row["value"] > 0 and row["reference"] > 0
    step, trained = RandomStep(overrides, 0, "cpu"), []
    own = torch.optim.AdamW

    class Recorded(own):
        def __init__(self, parameters, **settings):
            trained.extend(parameters)
            super().__init__(trained, **settings)

    torch.optim.AdamW = Recorded
    try:
        call = diffusers_step(step)
    finally:
        torch.optim.AdamW = own
    before = [p.clone() for p in trained]
    call()
    assert any(not torch.equal(p, q) for p, q in zip(trained, before, strict=True))
    count = sum(p.numel() for p in step.trainer.bare.hint.parameters())
    assert sum(p.numel() for p in trained) == pytest.approx(count, rel=0.01), "but for the channels of the sketch"
