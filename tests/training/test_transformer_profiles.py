"""Memory profiles of pretrained transformers: what they choose, and that the predicted peaks keep what they promise."""

from __future__ import annotations

import pytest

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import REFINE
from ragaf_exp.plan.budget import GIB, needs
from ragaf_exp.plan.predict import VALIDATION

PROFILES = [("12gb", "SD3", "nf4", 11.5, 1), ("24gb", "Flux", "nf4", 23, 2), ("80gb", "Flux", "bfloat16", 78, 4)]
GROUPS = ("text", "codec", "diffusion", "injection", "hint", "sampler")


@pytest.mark.parametrize(("profile", "backbone", "base", "promised", "items"), PROFILES)
def test_a_profile_chooses_a_transformer_whose_base_it_stores(profile, backbone, base, promised, items):
    cfg = compose_config([f"memory={profile}"])
    assert cfg.backbone._target_.endswith(f".{backbone}") and cfg.memory.budget == promised
    assert (cfg.memory.tune, cfg.memory.base, cfg.memory.features) == ("lora", base, "all")
    assert cfg.stage.batch // cfg.stage.accumulate == items and cfg.cluster.gpus == 1
    own = compose_config([f"backbone={'sd3' if backbone == 'SD3' else 'flux'}"])
    assert [cfg[group]._target_ for group in GROUPS] == [own[group]._target_ for group in GROUPS]


@pytest.mark.parametrize("family", ["sd3", "z_image", "qwen_image", "flux", "flux2"])
def test_another_family_brings_its_own_groups(family):
    own, cfg = compose_config([f"backbone={family}"]), compose_config([f"backbone={family}", "memory=24gb"])
    assert [cfg[group]._target_ for group in GROUPS] == [own[group]._target_ for group in GROUPS]
    assert cfg.memory.base == "nf4" and cfg.memory.budget == 23


@pytest.mark.long
@pytest.mark.parametrize(("profile", "backbone", "base", "promised", "items"), PROFILES)
def test_training_and_validation_keep_the_promise(profile, backbone, base, promised, items):
    for need in needs(compose_config([f"memory={profile}"]), (REFINE, VALIDATION)):
        assert need.total <= promised * GIB, need.peak.phase
