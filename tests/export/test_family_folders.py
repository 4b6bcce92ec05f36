"""Runs on pretrained transformers with all weights: the folder stands alone, and diffusers loads its parts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel, QwenImageTransformer2DModel, SD3Transformer2DModel
from exporting import write
from family_runs import overrides
from tiny_families import save_flux, save_qwen_image, save_sd3

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.export.pipeline import RagafPipeline

pytestmark = pytest.mark.long  # trains short runs

FAMILIES = {
    "flux": (save_flux, FluxTransformer2DModel, ("text_encoder", "text_encoder_2")),
    "sd3": (save_sd3, SD3Transformer2DModel, ("text_encoder", "text_encoder_2", "text_encoder_3")),
    "qwen_image": (save_qwen_image, QwenImageTransformer2DModel, ("text_encoder",)),
}


def trained(tiny: list[str], family: str, base: Path, runs: Path) -> Path:
    return run(compose_config(overrides(tiny, family, base, runs, "data.size=64", "memory.tune=frozen"))).path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_stands_alone(family, tiny, tmp_path):
    save, kind, encoders = FAMILIES[family]
    base = save(tmp_path / family)
    folder = trained(tiny, family, base, tmp_path / "runs")
    named = write(folder, tmp_path / "named", "diffusers")
    assert not (named / encoders[0]).exists() and not (named / "transformer").exists()
    strokes = np.zeros((64, 64), np.float32)
    strokes[16:48, [16, 47]] = strokes[[16, 47], 16:48] = 1
    ours = RagafPipeline.from_pretrained(named, sources={family: str(base)})("a red circle", strokes, seed=3).images[0]

    out = write(folder, tmp_path / "all", "diffusers", copies=True)
    theirs = kind.from_pretrained(out / "transformer").state_dict()
    given = kind.from_pretrained(base / "transformer").state_dict()
    assert theirs.keys() == given.keys() and all(torch.equal(theirs[name], given[name]) for name in given)
    for encoder in encoders:
        files = sorted(path for path in (base / encoder).iterdir())
        assert files and all((out / encoder / path.name).read_bytes() == path.read_bytes() for path in files)

    shutil.rmtree(base)
    with pytest.raises(UserError):
        RagafPipeline.from_pretrained(named, sources={family: str(base)})
    assert np.array_equal(RagafPipeline.from_pretrained(out)("a red circle", strokes, seed=3).images[0], ours)


def test_pickled_encoders_are_not_copied(tiny, tmp_path):
    base = save_flux(tmp_path / "flux")
    folder = trained(tiny, "flux", base, tmp_path / "runs")
    weights: Path = base / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(UserError, match=r"pytorch_model\.bin: is pickled; save it as safetensors"):
        write(folder, tmp_path / "all", "diffusers", copies=True)
