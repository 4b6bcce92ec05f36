"""A run folder that commit 3e79f00 wrote is sampled, evaluated and reported by today's code, with that commit's results.

run_of_3e79f00 holds its small files. Its weights are replaced by a formula of their names and shapes (shapes.json), and
stage1.png, stage2.png and the values in metrics.json are what commit 3e79f00 made of these weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from ragaf_exp.config.compose import compose_config
from ragaf_exp.runs.folder import run_path

pytestmark = pytest.mark.process

OLD_FILES = Path(__file__).parent / "run_of_3e79f00"
HASH = "95ccda024d44"  # the run folder's name, and so the hash of its config
PROMPT = "a red circle left of a blue square"


def weight(name: str, shape: list[int]) -> torch.Tensor:
    """Equidistributed values with the scale of an initialisation, the same on every platform."""
    phase = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) / 2**24
    golden_ratio = 0.6180339887498949
    values = torch.frac(torch.arange(math.prod(shape), dtype=torch.float64) * golden_ratio + phase) - 0.5
    scale = 2 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
    offset = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0  # of normalisation layers
    return (values * scale + offset).float().reshape(shape)


def write_checkpoint(folder: Path, stage: str, step: int, shapes: dict[str, list[int]]) -> None:
    """Write folder/<stage>/<step> in that commit's layout."""
    path = folder / stage / f"{step:08d}"
    path.mkdir(parents=True)
    weights = {name: weight(name, shape) for name, shape in shapes.items()}
    parts = {"model": weights, "ema": weights, "optimizer": {}}
    for part, tensors in parts.items():
        save_file(tensors, path / f"{part}.safetensors")
    files = [path / f"{part}.safetensors" for part in parts]
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (path / "state.json").write_text(json.dumps({"schema": 1, "stage": stage, "step": step, "sha256": sums}))


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "before" / HASH
    shutil.copytree(OLD_FILES, path, ignore=shutil.ignore_patterns("*.png", "shapes.json"))
    for stage, of in json.loads((OLD_FILES / "shapes.json").read_text()).items():
        write_checkpoint(path / "checkpoints", stage, of["step"], of["shapes"])
    return path


def test_its_config_keeps_its_hash(old_run):
    old = OmegaConf.load(old_run / "config.yaml")
    command = json.loads((old_run / "environment.json").read_text())["command"]
    assert run_path(compose_config(command[1:])).name == HASH == run_path(old).name


def test_it_is_sampled_to_the_same_images(old_run, tmp_path, cli):
    from ragaf_exp.sample import main

    arguments = [f"run={old_run}", f"sketch={OLD_FILES / 'sketch.png'}", f"prompt={PROMPT}", f"out={tmp_path}", "seed=3"]
    status, _, err = cli(main, *arguments)
    assert status == 0, err
    for name in ("stage1", "stage2"):
        ours, theirs = (cv2.imread(str(folder / f"{name}.png")).astype(int) for folder in (tmp_path, OLD_FILES))
        assert theirs.std() > 20  # an image, not a constant
        assert np.abs(ours - theirs).max() <= 1, name


def test_it_is_evaluated_to_the_same_metrics_and_reported(old_run, cli):
    from ragaf_exp.commands.evaluate import main

    before = json.loads((OLD_FILES / "metrics.json").read_text())["metrics"]
    status, _, err = cli(main, f"run={old_run}")
    assert status == 0, err
    after = json.loads((old_run / "metrics.json").read_text())["metrics"]
    assert set(before) <= set(after)
    for name, metric in before.items():
        assert after[name].get("value") == pytest.approx(metric["value"], rel=1e-4, abs=1e-4), name
    assert (old_run / "report.html").stat().st_size > 10_000
