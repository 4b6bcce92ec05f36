"""Whole runs on pretrained transformers by the command line, and one line for input that does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from family_runs import FAMILIES, overrides, save_all
from safetensors.torch import load_file
from tiny_families import save_flux2, save_sd3
from tiny_sd import save_sd

from ragaf_exp import run


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("families"))


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_both_stages_from_the_command_line(family, tiny, folders, tmp_path, cli):
    """64x64 scenes, text from the feature cache, LoRA, both stages, evaluation and report."""
    more = ["data.size=64", "memory.tune=lora", "memory.lora_rank=2", "memory.features=all", "sampler.steps=2",
            "eval.pictures=0", "sampler.guidance=2"]  # fmt: skip
    status, out, err = cli(run.command_line, *overrides(tiny, family, folders[family], tmp_path, *more))
    assert status == 0, err
    (folder,) = (path for path in (tmp_path / "tiny").iterdir() if path.is_dir() and not path.is_symlink())
    assert "stage1/mse" in json.loads((folder / "metrics.json").read_text())["metrics"]
    assert (folder / "report.html").stat().st_size > 10_000
    for stage in ("coarse", "refine"):
        newest = sorted((folder / "checkpoints" / stage).iterdir())[-1]
        backbone = {name for name in load_file(newest / "model.safetensors") if name.startswith("backbone.")}
        assert backbone and all(".lora_" in name for name in backbone), "the source's weights are not copied"
        assert (folder / "lora" / stage / "pytorch_lora_weights.safetensors").is_file()


def test_t5_is_optional(tiny, tmp_path, cli, refused):
    folder = save_sd3(tmp_path / "sd3", with_t5=False)
    small = [*overrides(tiny, "sd3", folder, tmp_path), "stage=coarse", "eval.pictures=0"]
    refused(run.command_line, *small, says=("text_encoder_3", "text.t5=false"))
    assert cli(run.command_line, *small, "text.t5=false")[0] == 0


@pytest.mark.parametrize(
    ("option", "of", "says"),
    [
        ("flux", "sd3", ("backbone.source=", "SD3Transformer2DModel", "take backbone=sd3")),
        ("sd3", "z_image", ("ZImageTransformer2DModel", "take backbone=z_image")),
        ("qwen_image", "flux", ("FluxTransformer2DModel", "take backbone=flux")),
        ("flux", "flux2", ("Flux2Transformer2DModel", "take backbone=flux2")),
    ],
)
def test_a_folder_of_another_family(option, of, says, tiny, folders, tmp_path, refused):
    refused(run.command_line, *overrides(tiny, option, folders[of], tmp_path), says=says)


def test_flux2_dev_and_a_controlnet_of_flux2_are_refused(tiny, folders, tmp_path, refused):
    folder = save_flux2(tmp_path / "dev", guidance=True)
    refused(run.command_line, *overrides(tiny, "flux2", folder, tmp_path), says=("guidance scale", "Flux.2 klein"))
    words = overrides(tiny, "flux2", folders["flux2"], tmp_path, "hint=controlnet")
    refused(run.command_line, *words, says=("hint=controlnet", "Flux2", "set hint=lite"))


def test_a_folder_of_a_unet(tiny, tmp_path, refused):
    folder = save_sd(tmp_path / "sd")
    says = (str(folder), "transformer/config.json", "unet")
    refused(run.command_line, *overrides(tiny, "flux", folder, tmp_path), says=says)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("text_encoder_2", ("backbone.source", "text_encoder_2/config.json")),
        ("text_encoder_2/model.safetensors", ("text_encoder_2", "no weights")),
        ("tokenizer_2", ("no tokenizer", "tokenizer_2")),
        ("transformer", ("transformer/config.json",)),
        ("vae", ("vae/config.json",)),
        ("scheduler", ("scheduler/scheduler_config.json",)),
    ],
)
def test_an_incomplete_folder(missing, says, tiny, folders, tmp_path, refused):
    folder = shutil.copytree(folders["flux"], tmp_path / "flux")
    path = folder / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    refused(run.command_line, *overrides(tiny, "flux", folder, tmp_path), says=(str(folder), *says[1:]))


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("flux", ["data.size=40"], ("data.size=40", "multiple of 16")),
        ("sd3", ["data.size=256"], ("latents of 32x32", "24 rows")),
        ("flux", ["text=tiny"], ("takes 32 channels of text tokens", "text gives 128")),
        ("flux", ["codec=pixel"], ("latent channels", "codec gives 48")),
        ("flux", ["diffusion=eps", "sampler=ddim"], ("trained as a flow", "diffusion=folder_flow")),
        ("flux", ["injection=mask"], ("injection", "injection=tokens")),
        ("flux", ["injection=appended"], ("injection", "injection=tokens")),
        ("flux", ["backbone.source="], ("backbone.source", "hub id")),
        ("flux", ["diffusion.spacing=odd"], ("diffusion.spacing=odd", "even or scheduler")),
    ],
)
def test_settings_that_do_not_fit(family, more, says, tiny, folders, tmp_path, refused):
    refused(run.command_line, *overrides(tiny, family, folders[family], tmp_path, *more), says=says)
