"""Memory profiles: what they choose, and that the peak predicted of their training keeps what they promise."""

from __future__ import annotations

import pytest

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import REFINE
from ragaf_exp.plan.budget import GIB, needs

RANDOM = ["backbone.weights=none", "codec.weights=none"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("profile", "promised", "items", "more"),
    [("4gb", 3.9, 2, RANDOM[1:]), ("8gb", 7.5, 1, RANDOM), ("16gb", 15.5, 4, RANDOM), ("32gb", 31, 4, RANDOM)],
)  # fmt: skip
def test_the_predicted_peak_of_training_keeps_the_promise(profile, promised, items, more):
    cfg = compose_config([f"memory={profile}", *more])
    assert cfg.memory.budget == promised and cfg.data.size == 512
    (need,) = needs(cfg, (REFINE,))
    assert need.peak.micro_batch >= items and need.total <= promised * GIB


@pytest.mark.parametrize(("profile", "most"), [("4gb", 1e-4), ("8gb", 1e-5), ("16gb", 1e-4), ("32gb", 1e-5)])
def test_large_networks_are_not_trained_at_the_rates_of_the_embedded_one(profile, most):
    """At 0.003 unet160's loss stayed above 1.1, where 0.0001 took it to 0.26."""
    stage = compose_config([f"memory={profile}"]).stage
    assert stage.coarse.lr == stage.refine.lr == most and stage.refine.region_lr < compose_config([]).stage.refine.region_lr
    assert compose_config([f"memory={profile}", "stage.coarse.lr=0.002"]).stage.coarse.lr == 0.002


def test_what_the_command_line_names_wins_over_a_profile():
    cfg = compose_config(["backbone=tiny", "data.size=64", "memory=16gb", "hint=t2i"])
    names = [cfg[group]._target_.rpartition(".")[2] for group in ("backbone", "hint", "text", "codec")]
    assert names == ["TinyUNet", "T2IHint", "ClipText", "Taesd"] and cfg.data.size == 64 and cfg.memory.tune == "frozen"
    assert compose_config([]).memory.budget == 0 and compose_config([]).data.size == 64
