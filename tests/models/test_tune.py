"""What is trained on a pretrained backbone, in both stages; what checkpoints then hold; LoRA as diffusers reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from tiny_sd import save_sd

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json, write_json
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.long

SHORT = ["stage.coarse.steps=3", "stage.refine.steps=3", "stage.refine.region_steps=1", "stage.checkpoint_every=2",
         "stage.batch=2", "stage.refine.region_batch=2", "stage.validate_every=9", "data.train=8", "data.val=2",
         "data.test=2", "eval.test_items=2", "eval.validation_items=2", "eval.batch=2", "ragaf.width=32", "ragaf.heads=2",
         "ragaf.layers=1", "hint=lite", "hint.width=16", "hint.zero_init=true"]  # fmt: skip
TUNES = ("frozen", "attention", "lora", "full")


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


def words(tiny, sd: Path, runs: Path, tune: str) -> list[str]:
    mine = [w for w in tiny if not w.startswith(("backbone.", "text.", "hint."))]
    mine = [w for w in mine if w.partition("=")[0] not in {s.partition("=")[0] for s in SHORT}]
    return [*mine, *SHORT, "backbone=sd15", f"backbone.source={sd}", "text=clip", "codec=kl", "diffusion=folder",
            f"memory.tune={tune}", "memory.lora_rank=4", f"runs={runs}"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tiny, sd, tmp_path_factory) -> dict[str, Path]:
    """A finished run with frozen weights, and one with LoRA."""
    place = tmp_path_factory.mktemp("runs")
    return {tune: run(compose_config(words(tiny, sd, place / tune, tune))).path for tune in ("frozen", "lora")}


def newest(folder: Path, stage: str) -> Path:
    return sorted((folder / "checkpoints" / stage).iterdir())[-1]


@pytest.mark.parametrize("tune", TUNES)
def test_what_is_trained_in_each_stage(tune, tiny, sd, tmp_path):
    cfg = compose_config(words(tiny, sd, tmp_path, tune))
    experiment = Training(cfg, RunFolder.create(cfg))
    coarse = experiment.trainer(COARSE, {})
    refine = experiment.trainer(REFINE, {COARSE: coarse.ema.model}).bare
    for stage, model in ((COARSE, coarse.bare), (REFINE, refine)):
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        backbone = {name for name in trained if name.startswith("backbone.")}
        assert not any(name.startswith("text.") for name in trained), "CLIP stays as it is"
        assert any(name.startswith("hint.") for name in trained) == (stage == COARSE or tune == "full")
        assert any(name.startswith("ragaf.") for name in trained) == (stage == REFINE)
        whole = {f"backbone.{name}" for name, _ in model.backbone.named_parameters()}
        wanted = {"frozen": set(), "full": whole, "attention": {n for n in whole if ".attn" in n},
                  "lora": {n for n in whole if ".lora_" in n}}[tune]  # fmt: skip
        assert backbone == wanted and (tune == "frozen" or wanted)
    frozen = dict(refine.named_parameters())
    for name, value in coarse.ema.model.named_parameters():
        if name in frozen and not frozen[name].requires_grad:
            assert frozen[name].data_ptr() == value.data_ptr(), "not trained, not copied"


def test_self_attention_alone(tiny, sd, tmp_path):
    cfg = compose_config([*words(tiny, sd, tmp_path, "attention"), "memory.attention=self"])
    model = Training(cfg, RunFolder.create(cfg)).trainer(COARSE, {}).bare
    trained = {name for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained and all(".attn1." in name for name in trained)


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_checkpoints_hold_what_the_source_does_not(tune, runs):
    for stage in (COARSE, REFINE):
        place = newest(runs[tune], stage)
        for part in ("model", "ema"):
            names = set(load_file(place / f"{part}.safetensors"))
            ours = {name for name in names if name.startswith(("backbone.", "text."))}
            assert ours == {n for n in ours if ".lora_" in n} and bool(ours) == (tune == "lora")
            assert any(name.startswith("hint.") for name in names)
        sources = read_json(place / "state.json")["sources"]
        assert set(sources) == {"backbone", "text"} and all(len(source["sha256"]) == 64 for source in sources.values())


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_resuming_ends_at_the_same_bytes(tune, runs, tiny, sd, tmp_path):
    copy = shutil.copytree(runs[tune], tmp_path / runs[tune].parent.name / runs[tune].name)
    shutil.rmtree(newest(copy, REFINE))
    state = read_json(copy / "status.json")
    write_json(copy / "status.json", {**state, "state": "running", "trained": False})
    again = run(compose_config(words(tiny, sd, tmp_path, tune))).path
    assert again == copy
    for part in ("model", "ema", "optimizer"):
        file = f"{part}.safetensors"
        assert (newest(copy, REFINE) / file).read_bytes() == (newest(runs[tune], REFINE) / file).read_bytes()


def test_another_sources_weights_are_refused(runs, sd, tmp_path):
    folder, cfg = RunFolder.read(runs["frozen"])
    cfg.backbone.source = str(save_sd(tmp_path / "other", seed=9))
    with pytest.raises(UserError, match="backbone.source=.*not those that this run was trained with"):
        load_run(folder, cfg)


def test_diffusers_loads_the_lora(runs, sd):
    folder, cfg = RunFolder.read(runs["lora"])
    _, pipeline = load_run(folder, cfg)
    ours = pipeline.models["refine"].backbone
    plain = UNet2DConditionModel.from_pretrained(sd, subfolder="unet").eval()
    x, t, text = torch.randn(1, 4, 8, 8), torch.tensor([9]), torch.randn(1, 77, ours.unet.config.cross_attention_dim)
    with torch.no_grad():
        before = plain(x, t, text).sample
        parts = {"vae": None, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
        theirs = StableDiffusionPipeline(
            unet=plain, scheduler=DDIMScheduler(), requires_safety_checker=False, **parts
        )  # fmt: skip
        theirs.load_lora_weights(runs["lora"] / "lora" / REFINE)
        after, wanted = plain(x, t, text).sample, ours.unet(x, t, text).sample
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
    assert not torch.equal(before, after) and not (runs["frozen"] / "lora").exists()
