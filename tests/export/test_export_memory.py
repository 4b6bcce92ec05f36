"""The memory that an export takes above that of the libraries: no file is held as a copy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exporting import HINTS, SHORT
from tiny_sd import save_sd

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.files import checksum
from ragaf_exp.core.tensor_files import LazyTensor, write_tensors
from ragaf_exp.runs.checkpoints import EMA_FILE, write_averaged
from ragaf_exp.runs.folder import RunFolder

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc, which has the peak of a process"),
]

CHANNELS = (384, 768)  # of the UNet: a ControlNet of some 250 MB
SHARES = {  # of the largest file: diffusers maps a ControlNet's as a whole
    "controlnet": 1.2, "diffusers": 1.2, "run": 0.5, "diffusers controlnet lora run": 1.3,  # 80 MB are code that samples
}  # fmt: skip
VAE_CHANNELS = (64, 128, 256, 256)  # 80 MB, which whole exports read and must give back
REST = 64 * 2**20  # bytes that do not grow with it: a layer, text encoder and autoencoder, activations
SCRIPT = Path(__file__).with_name("export_memory.py")


def random(shape: torch.Size, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(tuple(shape), dtype, lambda: (0.02 * torch.randn(shape)).to(dtype))


def write_stage(folder: RunFolder, parts, stage: str, sources: dict[str, dict[str, str]]) -> None:
    """A checkpoint with random weights of everything that a run with LoRA and a ControlNet trains."""
    with torch.device("meta"):
        state = make_model(parts, stage).state_dict()
    own = {name: random(value.shape, value.dtype) for name, value in state.items()
           if not name.startswith(("text.", "backbone.")) or ".lora_" in name}  # fmt: skip
    path = folder.checkpoints / stage / "00000002"
    path.mkdir(parents=True)
    write_tensors(path / EMA_FILE, own, {})
    write_averaged(path, stage, 2, sources)


@pytest.fixture(scope="module")
def large_run(tiny, tmp_path_factory) -> Path:
    """The folder of a run as training leaves it."""
    root = tmp_path_factory.mktemp("large")
    sd = save_sd(root / "sd", channels=CHANNELS, vae_channels=VAE_CHANNELS)
    base = [word for word in tiny if not word.startswith(("backbone.", "text.", "hint."))]
    base = [word for word in base if word.partition("=")[0] not in {s.partition("=")[0] for s in SHORT}]
    cfg = compose_config([
        *base, *SHORT, *HINTS["controlnet"], "backbone=sd15", f"backbone.source={sd}", "text=clip", "codec=kl",
        "diffusion=folder", "memory.tune=lora", "memory.lora_rank=4", f"runs={root}/runs", "name=large",
    ])  # fmt: skip
    folder = RunFolder.create(cfg)
    parts = assemble(cfg, folder)
    files = {"backbone": sd / "unet/diffusion_pytorch_model.safetensors", "text": sd / "text_encoder/model.safetensors"}
    sources = {group: {"source": str(sd), "sha256": checksum(file)} for group, file in files.items()}
    for stage in ("coarse", "refine"):
        write_stage(folder, parts, stage, sources)
    folder.status("done", trained=True)
    folder.release()
    return folder.path


@pytest.fixture(scope="module")
def measured(large_run, tmp_path_factory) -> dict[str, tuple[dict, Path]]:
    """Figures and folder of each export."""
    out = tmp_path_factory.mktemp("measured")
    done = subprocess.run([sys.executable, SCRIPT, large_run, out, *SHARES], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"peak"')]
    return {kinds: (one, out / kinds) for kinds, one in zip(SHARES, figures, strict=True)}


@pytest.mark.parametrize("kinds", SHARES)
def test_memory_is_in_proportion_to_the_largest_file(kinds, measured):
    figures, folder = measured[kinds]
    largest = max(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert all("bit by bit" in checked or "at most 0 of 255" in checked for checked in figures["checked"])
    assert 200e6 < largest < 400e6 and figures["peak"] <= SHARES[kinds] * largest + REST
