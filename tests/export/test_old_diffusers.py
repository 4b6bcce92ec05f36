"""Exported files in diffusers 0.30: what it loads, and the outputs, equal those of the newest version.

`.ci/old_diffusers` makes its environment; RAGAF_OLD_DIFFUSERS names another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from exporting import train, write
from family_runs import overrides
from safetensors.torch import load_file
from tiny_families import save_flux, save_sd3

from ragaf_exp.config.compose import compose_config
from ragaf_exp.experiments.experiment import run

ROOT = Path(__file__).resolve().parents[2]
OLD = Path(os.environ.get("RAGAF_OLD_DIFFUSERS", ROOT / "build/old-diffusers")) / "bin/python"
SCRIPT = Path(__file__).with_name("loaded_elsewhere.py")
INDEX = {
    "_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "scheduler": ["diffusers", "DDPMScheduler"],
    "safety_checker": [None, None], "feature_extractor": [None, None],
}  # fmt: skip
WEIGHTS = "pytorch_lora_weights.safetensors"
JOBS = ("controlnet_folder", "controlnet_original", "adapter", "unet_tuned", "unet", "autoencoder", "text",
        "lora_kohya", "lora_folder", "checkpoint", "flux_lora", "sd3_lora")  # fmt: skip

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not OLD.exists(), reason=f"no {OLD}; .ci/old_diffusers makes it"),
]


def single(folder: Path, pattern: str) -> str:
    (path,) = folder.glob(pattern)
    return str(path)


def family_lora(tiny: list[str], family: str, base: Path, root: Path) -> Path:
    """The LoRA files of a short run on a pretrained transformer."""
    more = ["data.size=64", "memory.tune=lora", "memory.lora_rank=2", f"name={family}"]
    made = run(compose_config(overrides(tiny, family, base, root / "runs", *more))).path
    return write(made, root / family, "lora")


@pytest.fixture(scope="module")
def jobs(tiny, sd, lora_export, full_export, tmp_path_factory) -> dict[str, list[str]]:
    root = tmp_path_factory.mktemp("old")
    (sd / "model_index.json").write_text(json.dumps(INDEX))
    control, control_file = str(lora_export / "controlnet"), single(lora_export, "control_*.safetensors")
    t2i = write(train(tiny, sd, root, "frozen", "t2i"), root / "t2i", "adapter")
    flux, sd3 = save_flux(root / "flux_base"), save_sd3(root / "sd3_base", medium35=False)
    flux_lora, sd3_lora = family_lora(tiny, "flux", flux, root), family_lora(tiny, "sd3", sd3, root)
    kohya = single(lora_export, "controlnet_lora_lora.safetensors")
    return {
        "controlnet_folder": ["controlnet", control],
        "controlnet_original": ["controlnet", control, control_file],
        "adapter": ["adapter", str(t2i / "t2iadapter")],
        "unet_tuned": ["unet", str(full_export / "unet_tuned")],
        "unet": ["unet", str(lora_export / "unet")],
        "autoencoder": ["autoencoder", str(lora_export / "vae")],
        "text": ["text", str(lora_export / "text_encoder")],
        "lora_kohya": ["lora", str(sd), str(Path(kohya).parent), Path(kohya).name],
        "lora_folder": ["lora", str(sd), str(lora_export / "lora"), WEIGHTS],
        "checkpoint": ["checkpoint", single(full_export, "controlnet_full.safetensors"), str(sd)],
        "flux_lora": ["flux_lora", str(flux), str(flux_lora / "lora"), WEIGHTS],
        "sd3_lora": ["sd3_lora", str(sd3), str(sd3_lora / "lora"), WEIGHTS],
    }


@pytest.fixture(scope="module")
def outputs(jobs, tmp_path_factory) -> dict[str, Path]:
    """Version -> folder of what it made of the jobs."""
    folders = {}
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hub"))}
    for name, python in {"old": str(OLD), "new": sys.executable}.items():
        folders[name] = out = tmp_path_factory.mktemp(name)
        (out / "jobs.json").write_text(json.dumps(jobs))
        done = subprocess.run([python, str(SCRIPT), str(out / "jobs.json"), str(out)], capture_output=True, text=True,
                              timeout=240, env=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    return folders


def test_it_is_another_version():
    command = [str(OLD), "-c", "import diffusers; print(diffusers.__version__)"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.stdout.split()[-1].startswith("0.30."), done.stderr[-2000:]
    assert not version("diffusers").startswith("0.30.")


def test_every_job_is_compared(jobs):
    assert set(jobs) == set(JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_files_load_and_compute_the_same(job, outputs):
    """State dicts to the bit, outputs to float32's rounding."""
    for folder in outputs.values():
        error = folder / f"{job}.txt"
        assert not error.exists(), error.read_text()
    old, new = (load_file(folder / f"{job}.safetensors") for folder in outputs.values())
    assert old.keys() == new.keys() and any(name.startswith("output") for name in old)
    for name, value in old.items():
        if name.startswith("output"):
            torch.testing.assert_close(value, new[name], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(value, new[name]), name
