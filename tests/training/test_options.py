"""One batch through both stages for every option of every config group, as listing conf/ finds them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_layouts import LAYOUTS
from extractor_weights import NEURAL, save_random
from PIL import Image, ImageDraw
from tiny_editing import EDITING
from tiny_families import SAVED
from tiny_sd import save_sd

from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import BUILT, COARSE, NESTED, PLAIN
from ragaf_exp.core.resources import CONF
from ragaf_exp.data.loader import collate
from ragaf_exp.evaluation.run import evaluate_run
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_stage, make_pipeline
from ragaf_exp.runs.folder import RunFolder

APART = ("experiment", "hydra", "cluster", "member")
FILES = sorted(p for p in CONF.glob("*/**/*.yaml") if p.relative_to(CONF).parts[0] not in APART)
AUTO = "memory=auto"  # becomes another option before a run begins: see test_auto.py
OPTIONS = [f"{path.parent.relative_to(CONF).as_posix()}={path.stem}" for path in FILES]  # also of groups within a group
LIBRARY = {"logger=wandb": "wandb", "graph/backend=dgl": "dgl", "graph/backend=pyg": "torch_geometric",
           "data=hf": "datasets"}  # fmt: skip
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
MORE = ["memory.precision=bf16 memory.checkpointing=true memory.ema=cpu", "memory.precision=fp16 memory.ema=off",
        "memory.step_in_backward=true optim.clip=0 memory.channels_last=true memory.offload=true",
        "sampler.guidance=3 sampler.sketch_guidance=2", "stage.refine.strength=0.6",
        "stage.accumulate=2 task.mirror=0.5 task.crops=1", "stage.refine.coarse_input=true memory.offload=true",
        "data.scenes=true data.recolour=true data=openmoji", "data.drawings=drawn data=folder",
        "task.caption_dropout=1 task.sketch_dropout=1", "regions.max_regions=1"]  # fmt: skip
# sources of files that have data.train, data.val, data.test
COUNTED = ("data=openmoji", "data=openmoji_scenes", "data=lineart", "data=quickdraw")
DIT = "backbone.width=32 backbone.depth=1 backbone.heads=2"
PROFILE = ["memory.budget=0", "stage.accumulate=2"]  # whether full-size ones fit, tests/training/test_profiles.py asks


def photos(root: Path) -> list[str]:
    """A folder of one's own images with paired drawings, none of them square."""
    rng = np.random.default_rng(0)
    for place in (root, root / "drawn"):
        place.mkdir(parents=True)
    rows = []
    for i in range(40):
        picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48))
        line = Image.new("L", (64, 48), 255)
        for canvas, fill in ((picture, (200, 30, 30)), (line, None)):
            ImageDraw.Draw(canvas).ellipse((18, 10, 46, 38), fill=fill, outline=0, width=2)
        picture.save(root / f"{i}.jpg")
        line.save(root / "drawn" / f"{i}.png")
        rows.append({"file_name": f"{i}.jpg", "text": f"a red ball number {i}" if i % 7 else ""})
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [f"data.root={root}", "data.val_share=0.2", "data.test_share=0.2"]


def emoji(root: Path) -> list[str]:
    """A folder in OpenMoji's layout."""
    for folder in ("black", "color"):
        (root / folder).mkdir(parents=True)
    rows = []
    for i in range(60):
        for folder, fill in (("black", None), ("color", (30, 60 + i, 200))):
            picture = Image.new("RGBA", (72, 72))
            shape = ImageDraw.Draw(picture)
            (shape.ellipse if i % 2 else shape.rectangle)((10, 10, 60, 60), fill=fill, outline=(0, 0, 0), width=2)
            picture.save(root / folder / f"1F{i:03X}.png")
        rows.append({"hexcode": f"1F{i:03X}", "annotation": f"thing {i}", "group": "objects", "subgroups": "tool"})
    (root / "openmoji.json").write_text(json.dumps(rows))
    return [f"data.root={root}"]


def networks(option: str, tmp_path: Path) -> list[str]:
    """Overrides for an option that needs weights or fits some other options only."""
    latents = ["backbone.head_width=0"]  # the tiny UNet's head draws pixels
    if option in ("codec=kl", "text=clip", "diffusion=folder"):
        folder = save_sd(tmp_path / "sd")
        return [f"{option.partition('=')[0]}.source={folder}", *(latents if option == "codec=kl" else [])]
    if option == "memory=4gb":
        small = ["backbone.base=32", "backbone.multipliers=[1,2]", "backbone.heads=2"]
        return ["backbone=unet160", *small, "codec=taesd", "codec.weights=none", "text=tiny", *PROFILE]
    if (family := {"memory=12gb": "sd3", "memory=24gb": "flux", "memory=80gb": "flux"}.get(option, "")) in SAVED:
        source = f"backbone.source={SAVED[family](tmp_path / family)}"
        groups = [f"backbone={family}", f"text={family}", "hint=lite_zero", "codec=kl16"]
        return [*groups, source, "memory.base=bfloat16", "text.max_tokens=20", *PROFILE]  # nf4 needs a CUDA device
    if option.startswith("memory=") and option.endswith("gb"):
        chosen = ["backbone=sd15", "text=clip", "codec=taesd", "hint=lite_zero", "diffusion=folder"]
        return [*chosen, f"backbone.source={save_sd(tmp_path / 'sd')}", "codec.weights=none", *PROFILE]
    if (family := option.partition("=")[2]) in EDITING and option.partition("=")[0] in ("backbone", "text"):
        source = f"backbone.source={EDITING[family](tmp_path / family)}"
        text = "flux" if family.startswith("flux") else family
        return [f"backbone={family}", f"text={text}", source, "task=remove", "data=removal", "text.max_tokens=80"]
    if family in SAVED and option.partition("=")[0] in ("backbone", "text", "codec"):
        source = f"backbone.source={SAVED[family](tmp_path / family)}"
        return [f"backbone={family}", f"text={family}", source, "text.max_tokens=400"]
    if option in ("codec=kl16", "diffusion=folder_flow", "diffusion=folder_flow_sd3", "sampler=qwen_image"):
        family = "sd3" if option.endswith("sd3") else "flux"
        source = f"backbone.source={SAVED[family](tmp_path / family)}"
        return [f"backbone={family}", f"text={family}", source, "text.max_tokens=20"]
    if option.startswith("backbone=sd15"):
        folder = save_sd(tmp_path / "sd", inpaint=option == "backbone=sd15_inpaint")
        return [f"backbone.source={folder}", "text=clip", "codec=kl", "diffusion=folder"]
    return {
        "hint=controlnet": ["hint.channels=[16,32,64]"],  # the pixel codec's latents are 1/4 of the image
        "hint=t2i": ["backbone=unet160", "backbone.base=32", "backbone.multipliers=[1,2]", "backbone.heads=2"],
        "codec=taesd": ["codec.weights=none", *latents],
        "backbone=unet160": ["backbone.base=32", "backbone.multipliers=[1,2]", "backbone.heads=2"],
        "data=folder": ["sketch=canny"],  # without drawings the photographs' edges
        "data=coco": ["sketch=canny"],
        "data=edits": ["task=remove", "sketch=canny"],
        "task=remove": ["data=removal"],
        "task=insert": ["data=insertion"],
        "task=multitask": ["data=mixture", "stage.accumulate=1"],
        "data=mixture": ["task=multitask"],
        "task=white_balance": ["data=casts"],
        "sampler=heun": ["diffusion=flow"],
    }.get(option, [])


def weights(option: str, folder: Path) -> Path:
    """Random ones of a neural extractor: the hub's aren't here."""
    folder.mkdir(exist_ok=True)
    return save_random(option.removeprefix("sketch="), folder)


def overrides(option: str, tiny: list[str], tmp_path: Path) -> list[str]:
    """tiny with an option; the data sources that need files get some."""
    words = option.split()
    layouts = {"data=folder": photos, "data=openmoji": emoji, "data=openmoji_scenes": emoji, **LAYOUTS}
    source = next((word for word in words if word in layouts), "")
    words += [f"sketch.weights={weights(option, tmp_path)}"] if option.removeprefix("sketch=") in NEURAL else []
    words += networks(option, tmp_path)
    groups = {w.partition("=")[0] for w in words if "." not in w.partition("=")[0]}
    tiny = [w for w in tiny if w.partition(".")[0] not in groups & {"text", "backbone", "codec", "hint"}]
    counts = ("data.train", "data.val", "data.test") if source and source not in COUNTED else ()
    mine = [word for word in tiny if not word.startswith(counts)]
    mine = [word for word in mine if word.partition("=")[0] not in {w.partition("=")[0] for w in words}]
    made = layouts[source](tmp_path / "data") if source else []
    return [*mine, *made, *words, f"runs={tmp_path / 'runs'}"]


def step(trainer, batch) -> None:
    """The last step of a plan, which trains the whole model, and its first."""
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in trainer.bare.named_parameters()}
    for at in (trainer.plan.steps - 1, 0):
        trainer.step(at, batch)
    assert all(value.isfinite() for row in trainer.metrics_logger.recent for value in row.values())
    changed = {name for name, p in trainer.bare.named_parameters() if not torch.equal(p, before[name][1])}
    assert changed and changed <= {name for name, (trained, _) in before.items() if trained}


def through_both_stages(cfg) -> None:
    """Loss, backward and step of every stage that the config runs, then a sample of them."""
    experiment = Training(cfg, RunFolder.create(cfg))
    batch = collate([experiment.train_examples[i] for i in range(cfg.stage.batch)])
    models = {}
    if COARSE not in cfg.stage.run:
        models[COARSE] = load_stage(make_model(experiment.parts, COARSE), experiment.folder, COARSE)
    for stage in cfg.stage.run:
        trainer = experiment.trainer(stage, models)
        step(trainer, batch)
        models[stage] = trainer.ema.model
    experiment.logger.open(experiment.folder.path, {})
    experiment.logger.log(COARSE, 1, {"loss": 0.5})
    experiment.logger.close()
    generated = make_pipeline(cfg, experiment.parts, models, experiment.compute)(batch)
    assert len(generated.images) == len(models)
    for images in generated.images.values():
        assert images.shape == batch.image.shape and images.isfinite().all() and images.abs().max() <= 1


@pytest.mark.parametrize("option", [o for o in [*OPTIONS, *MORE] if not o.startswith("eval=") and o != AUTO])
def test_one_batch_through_both_stages(option, tiny, finished, tmp_path):
    if option in LIBRARY and importlib.util.find_spec(LIBRARY[option]) is None:
        pytest.skip(f"{LIBRARY[option]} is not installed")
    wandb = ["logger.mode=offline"] if option == "logger=wandb" else []
    init = [f"init={finished}"] if option == "stage=refine" else []
    through_both_stages(compose_config([*overrides(option, tiny, tmp_path), *wandb, *init]))


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.startswith("eval=")])
def test_every_evaluation(option, tiny, run_copy):
    words = [word for word in tiny if not word.startswith("eval.test_items")]
    cfg = compose_config([*words, option, "data.test=6"])
    metrics = evaluate_run(RunFolder(run_copy), cfg)["metrics"]
    wanted = min(cfg.eval.test_items, 6) if cfg.eval.test_items else 6
    assert metrics["mse"]["n"] == metrics["stage1/mse"]["n"] == wanted


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment(name, tiny, tmp_path):
    tiny = [word for word in tiny if not (name == "dit" and word.startswith("backbone.widths"))]  # the UNet's
    words = overrides({"openmoji": "data=openmoji_scenes", "dit": DIT}.get(name, ""), tiny, tmp_path)
    through_both_stages(compose_config([f"+experiment={name}", *words]))


def test_every_group_has_an_option_here():
    groups = {NESTED.get(key, key) for key in (*PLAIN, *BUILT)}
    assert {o.partition("=")[0] for o in OPTIONS} == groups - {"cluster"}  # it changes nothing that is computed


@pytest.mark.long
@pytest.mark.parametrize("option", ["data=folder", "data=openmoji", "data=coco", "data=sketchy"])
def test_a_whole_run_on_ones_own_files(option, tiny, tmp_path):
    short = ["stage.coarse.steps=1", "stage.refine.steps=1", "stage.refine.region_steps=1"]
    words = [word for word in tiny if word.partition("=")[0] not in {s.partition("=")[0] for s in short}]
    folder = run(compose_config([*overrides(option, words, tmp_path), *short]))
    assert folder.state["state"] == "done" and folder.report.exists()
    assert "sketch_f1" in json.loads(folder.metrics.read_text())["metrics"]
