"""LoRA of runs on pretrained transformers: diffusers loads the exported files with the effect of the run's own layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exporting import write
from family_runs import overrides
from loaded_elsewhere import flux_lora, of_flux, of_sd3, sd3_lora
from safetensors.torch import load_file
from tiny_families import save_flux, save_qwen_image, save_sd3

from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.process  # trains short runs

BASES = {"flux": save_flux, "sd3": save_sd3, "qwen_image": save_qwen_image}
LOADED = {"flux": (flux_lora, of_flux), "sd3": (sd3_lora, of_sd3)}


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> dict[str, tuple[Path, Path, Path]]:
    """Family -> base, run and export."""
    root, made = tmp_path_factory.mktemp("families"), {}
    for family, save in BASES.items():
        base = save(root / family)
        more = ["data.size=64", "memory.tune=lora", "memory.lora_rank=2", f"name={family}"]
        folder = run(compose_config(overrides(tiny, family, base, root / "runs", *more))).path
        made[family] = (base, folder, write(folder, root / "exports" / family, "lora"))
    return made


@torch.no_grad()
@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "one file"])
@pytest.mark.parametrize("family", LOADED)
def test_diffusers_computes_what_the_run_does(family, name, trained):
    base, folder, out = trained[family]
    load, output = LOADED[family]
    where, file = (out / "lora", name) if name.startswith("pytorch") else (out, f"{family}_lora.safetensors")
    theirs = load(str(base), str(where), file)["output"]
    _, pipeline = load_run(*RunFolder.read(folder))
    torch.testing.assert_close(theirs, output(pipeline.models["refine"].backbone.net), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", BASES)
def test_both_layouts_hold_the_same_layers(family, trained):
    """As many low-rank changes as the run trained; joined layers of sd-scripts have several of them."""
    _, folder, out = trained[family]
    stored = load_file(next(iter(sorted((folder / "checkpoints/refine").iterdir()))) / "ema.safetensors")
    own = {name for name in stored if ".lora_A." in name}
    named = load_file(out / f"{family}_lora.safetensors")
    assert sum(".lora_A." in name for name in named) == len(own) > 0
    assert all(name.startswith("transformer.") for name in named)
    scripts = load_file(out / f"{family}_lora_kohya.safetensors")
    ranks = [len(value) for name, value in scripts.items() if name.endswith("lora_down.weight")]
    assert sum(ranks) == 2 * len(own), "each layer's rank is 2"
