"""Every memory profile as a run, small and on a processor, from a folder in Stable Diffusion's layout to the report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_sd import save_sd

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.evaluation.run import evaluate_run
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main as sample
from ragaf_exp.training.trainer import Trainer

pytestmark = pytest.mark.process

PROFILES = ("4gb", "8gb", "16gb", "32gb")
SMALL = """data.size=64 data.train=4 data.val=2 data.test=2 stage.coarse.steps=2 stage.refine.steps=2
    stage.refine.region_steps=1 stage.checkpoint_every=1 stage.validate_every=9 stage.batch=2 stage.accumulate=2
    stage.refine.region_batch=2 eval.test_items=2 eval.validation_items=2 eval.batch=2 eval.grid=1 eval.pictures=1
    ragaf.width=32 ragaf.heads=2 ragaf.layers=1 hint.width=16 codec.weights=none memory.device=cpu memory.force=true
    eval.bootstrap=20 eval.metrics=[] sampler.steps=2 optim.warmup=1 logger=none name=small""".split()
SCRATCH = """backbone.base=32 backbone.multipliers=[1,2] backbone.heads=2 text.width=32 text.heads=2
    text.layers=1 memory.precision=no""".split()


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """stories(profile) -> its finished run, which was killed within stage 2, and the steps of each start."""
    sd, known = save_sd(tmp_path_factory.mktemp("sd") / "sd"), {}

    def make(profile: str) -> tuple[RunFolder, list[list[tuple[str, int]]]]:
        if profile in ("4gb", "8gb"):
            pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes: this profile's optimizer")
        place = tmp_path_factory.mktemp(profile)
        own = SCRATCH if profile == "4gb" else [f"backbone.source={sd}", "memory.precision=bf16"]
        cfg = compose_config(
            [f"memory={profile}", *SMALL, *own, f"runs={place / 'runs'}", f"cache.folder={place / 'cache'}"]
        )
        step, starts = Trainer.step, []

        def counted(self, at, batch):
            if len(starts) == 1 and (self.plan.stage, at) == (REFINE, 2):
                raise KeyboardInterrupt
            starts[-1].append((self.plan.stage, at))
            step(self, at, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", counted)
            starts.append([])
            with pytest.raises(KeyboardInterrupt):
                run(cfg)
            starts.append([])
            return run(cfg), starts

    return lambda profile: known[profile] if profile in known else known.setdefault(profile, make(profile))


def tensors(folder: RunFolder, stage: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(sorted((folder.checkpoints / stage).iterdir())[-1] / f"{name}.safetensors")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_killed_run_goes_on_to_its_end(profile, stories):
    folder, (first, second) = stories(profile)
    assert first == [(COARSE, 0), (COARSE, 1), (REFINE, 0), (REFINE, 1)] and second == [(REFINE, 2)]
    assert folder.done() and folder.report.exists() and folder.metrics.exists()


def test_what_profiles_train_and_keep(stories):
    """A checkpoint holds what its source does not: what was trained; features and moments are as the profile says."""
    held, moments, remaining = {}, {}, {}
    for profile in PROFILES:
        folder = stories(profile)[0]
        held[profile] = {name for name in tensors(folder, COARSE, "model") if name.startswith("backbone.")}
        moments[profile] = {v.dtype for v in tensors(folder, REFINE, "optimizer").values()}
        cache = Path(RunFolder.read(folder.path)[0].path).parents[2] / "cache"
        remaining[profile] = sorted(p.name.partition("-")[0] for p in cache.glob("features/*"))
        assert all(v.isfinite().all() for v in tensors(folder, REFINE, "ema").values() if v.is_floating_point())
    assert held["16gb"] == set() and held["8gb"] and all(".attn" in name for name in held["8gb"])
    assert held["8gb"] < held["32gb"] and any("conv_in" in name for name in held["32gb"] & held["4gb"])
    assert [torch.uint8 in moments[p] for p in PROFILES] == [True, True, False, False]
    assert [remaining[p] for p in PROFILES] == [["latent"], ["latent", "text"], [], []]


@pytest.mark.parametrize("profile", PROFILES)
def test_it_is_sampled_and_evaluated_again(profile, stories, cli, figures, tmp_path):
    folder, _ = stories(profile)
    drawing = Image.new("L", (70, 50), 255)
    drawing.paste(0, (20, 10, 23, 40)), drawing.paste(0, (20, 10, 50, 13))
    drawing.save(tmp_path / "drawing.png")
    words = [f"run={folder.path}", f"sketch={tmp_path / 'drawing.png'}", "prompt=a red circle", f"out={tmp_path}/o"]
    status, output, err = cli(sample, *words, "attention=false")
    assert status == 0, err
    images = [np.asarray(Image.open(path)) for path in (tmp_path / "o").rglob("*.png")]
    assert any(image.shape[:2] == (64, 64) and image.std() > 0 for image in images), output
    copy = shutil.copytree(folder.path, tmp_path / "runs" / "small" / folder.path.name)
    shutil.rmtree(copy / "samples" / "drawn")
    before = figures(copy)
    os.remove(copy / "metrics.json")
    again, cfg = RunFolder.read(copy)
    evaluate_run(again, cfg)
    assert figures(copy) == pytest.approx(before, rel=1e-6, nan_ok=True) and "sketch_f1" in before
