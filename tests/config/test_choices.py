"""Groups that a pretrained transformer chooses, with and without a memory profile that chooses others."""

from __future__ import annotations

import pytest

from ragaf_exp.config.compose import compose_config, with_choices

GROUPS = ("text", "codec", "diffusion", "hint", "sampler")


def chosen(*overrides: str) -> list[str]:
    cfg = compose_config(list(overrides))
    return [cfg[group]._target_.rpartition(".")[2] for group in GROUPS]


@pytest.mark.parametrize("profile", [[], ["memory=lora"], ["memory=16gb"]])
def test_a_transformer_brings_its_own_groups(profile):
    assert chosen("backbone=flux", *profile) == ["FluxText", "KL16", "FolderFlow", "LiteHint", "Sampler"]
    assert chosen("backbone=qwen_image", *profile)[:2] == ["QwenImageText", "QwenImageKL"]
    assert chosen("backbone=flux", "codec=taesd", *profile)[1] == "Taesd", "the command line wins"


def test_a_unet_leaves_the_profiles_choices():
    assert chosen("memory=16gb")[:3] == ["ClipText", "Taesd", "FolderDiffusion"]
    unchanged = (["backbone=tiny", "memory=16gb"], ["backbone=flux"], ["memory=16gb"], ["backbone=no_such", "memory=cpu"])
    for overrides in unchanged:
        assert with_choices(overrides) == overrides
