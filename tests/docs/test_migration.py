"""Every key and option that the page for users of other tools names exists."""

from __future__ import annotations

import re

from blocks import ROOT
from omegaconf import OmegaConf

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.resources import CONF

PROFILES = (["memory=16gb", "hint=controlnet", "data=folder"], ["memory=4gb", "diffusion=eps"],
            ["backbone=flux", "hint=controlnet", "diffusion=flow"])  # fmt: skip


def test_all_keys_and_options_of_the_right_column_exist():
    page = (ROOT / "docs" / "migration.md").read_text()
    columns = [line.rsplit("|", 2)[1] for line in page.splitlines() if line.startswith("| ")]
    codes = [part for column in columns for code in re.findall("`([^`]+)`", column) for part in code.split()]
    configs = [compose_config(overrides) for overrides in PROFILES]
    keys = {code.partition("=")[0] for code in codes if re.fullmatch(r"\w+(\.\w+)+(=.*)?", code)}
    keys.discard("metadata.jsonl")  # a file
    missing = [key for key in sorted(keys) if all(OmegaConf.select(cfg, key) is None for cfg in configs)]
    assert len(keys) > 40 and not missing
    options = [code.split("=") for code in codes if re.fullmatch(r"\w+=[a-z]\w*", code)]
    unknown = [option for option in options if not (CONF / option[0] / f"{option[1]}.yaml").is_file()]
    assert len(options) > 10 and not unknown
