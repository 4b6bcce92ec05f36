"""A task of one file and one YAML goes through every door: data, both inputs, losses, metrics, grids, planner, resume."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from eval.scoring import Scoring
from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config, config_hash, load_config
from ragaf_exp.config.schema import Memory
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Batch, Example
from ragaf_exp.data.loader import collate
from ragaf_exp.data.variants import MirroredItems
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_run
from ragaf_exp.models.loading.tuning import set_trainable
from ragaf_exp.models.model import Model
from ragaf_exp.plan.dummies import largest_batch
from ragaf_exp.runs.flat_config import flat_config
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main
from ragaf_exp.tasks.base import Denoised, denoising_loss
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import sample_step_noise

MODULE = "ragaf_exp.tasks.toy_inpaint"
TASK = f"task._target_={MODULE}.ToyInpaint ~task.caption_dropout ~task.sketch_dropout".split()
SHORT = """
    stage=coarse stage.coarse.steps=6 stage.validate_every=6 stage.checkpoint_every=6 stage.log_every=3
""".split()


def hole_metrics(scoring) -> dict[str, list[float]]:
    """MSE within the hole, under the name of the whole image's."""
    pairs = zip(scoring.images, scoring.examples, strict=True)
    return {"mse": [float(np.square((image / 255.0 - e.item.image / 255.0)[hole(e)]).mean()) for image, e in pairs]}


def hole(example: Example) -> np.ndarray:
    return example.conditions["mask"] == 0


@pytest.fixture(scope="module", autouse=True)
def toy_module():
    """The file as a module of the package, as it would be for a user who adds it there."""
    spec = importlib.util.spec_from_file_location(MODULE, Path(__file__).with_name("toy_inpaint.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE], sys.modules["tests_toy_inpaint"] = module, sys.modules[__name__]
    spec.loader.exec_module(module)
    yield module
    del sys.modules[MODULE], sys.modules["tests_toy_inpaint"]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    """The folder of a finished run of the toy task."""
    words = [word for word in tiny if word.partition("=")[0] not in {s.partition("=")[0] for s in SHORT}]
    return run(compose_config([*words, *SHORT, *TASK, f"runs={tmp_path_factory.mktemp('toy')}"])).path


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    cfg = compose_config([*tiny, *TASK, f"runs={tmp_path_factory.mktemp('fresh')}"])
    return Training(cfg, RunFolder.create(cfg))


@pytest.fixture(scope="module")
def batch(experiment) -> Batch:
    return collate([experiment.train_examples.at(0, i) for i in range(4)])


# --- a whole run


def test_it_logs_its_loss_and_how_much_each_condition_is_used(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(rows[0]["loss_diffusion"] + rows[0]["loss_hole"])
    assert {"right", "text_shuffled", "sketch_shuffled", "known_shuffled", "ssim"} <= set(rows[-1]["validation"])


def test_its_own_metric_panels_and_report_are_there(trained):
    metrics = json.loads((trained / "metrics.json").read_text())["metrics"]
    assert "sketch_f1" not in metrics, "metrics of other tasks are not measured"
    items = [json.loads(line) for line in (trained / "items.jsonl").read_text().splitlines()]
    parts, pipeline = load_run(RunFolder(trained), load_config(trained / "config.yaml"))
    examples = parts.examples("test").first(4)
    images = pipeline(collate(examples)).to_images().final
    assert [i["values"]["mse"] for i in items] == pytest.approx(hole_metrics(Scoring(images, examples, None, 0))["mse"])
    files = {path.name for path in (trained / "samples" / "test" / "0000").iterdir()}
    assert {"masked.png", "stage1.png", "truth.png"} <= files and "sketch.png" not in files
    assert (trained / "report.html").stat().st_size > 10_000


def test_it_loads_and_samples_what_it_trained(trained):
    folder = RunFolder(trained)
    parts, pipeline = load_run(folder, load_config(trained / "config.yaml"))
    batch = collate(parts.examples("test").first(2))
    first, again = pipeline(batch), pipeline(batch)
    assert torch.equal(first.images["stage1"], again.images["stage1"]) and first.images["stage1"].isfinite().all()
    other = replace(batch, conditions={name: x.roll(1, 0) for name, x in batch.conditions.items()})
    assert not torch.allclose(pipeline(other).images["stage1"], first.images["stage1"]), (
        "the known part reaches the denoiser"
    )


def test_a_request_has_the_columns_of_the_task(trained, cli, refused, tmp_path):
    image, mask, out = tmp_path / "image.png", tmp_path / "mask.png", tmp_path / "out"
    grey = np.full((32, 32), 255, np.uint8)
    grey[8:20, 8:20] = 0
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(image)
    Image.fromarray(grey).save(mask)
    status, _, errors = cli(main, f"run={trained}", f"image={image}", f"mask={mask}", f"out={out}")
    assert status == 0, errors
    result, hole = np.asarray(Image.open(out / "result.png")), grey == 0
    assert (result[~hole] == 90).all() and not (result[hole] == 90).all(), "only the hole is sampled"
    assert (out / "comparison.png").exists() and json.loads((out / "result.json").read_text())["mask"] == str(mask)
    refused(main, f"run={trained}", f"image={image}", f"out={out}", says=("mask=: missing", "image, mask"))
    refused(main, f"run={trained}", f"sketch={mask}", f"out={out}", says=("sketch",))
    table = tmp_path / "rows.csv"
    table.write_text("image,mask,prompt\nimage.png,mask.png,\nimage.png,mask.png,a red star\n")
    status, _, errors = cli(main, f"run={trained}", f"batch={table}", f"out={tmp_path / 'many'}")
    assert status == 0 and (tmp_path / "many" / "0001" / "result.png").exists(), errors


def test_a_sketch_that_is_not_given_is_a_dropped_one(experiment, batch):
    model = make_model(experiment.parts, "refine")
    torch.nn.init.normal_(model.backbone.head.last.weight, std=0.1)
    x, t = torch.randn(experiment.parts.codec.latent_shape(batch)), torch.full((4,), 500)
    absent = replace(batch, present={"sketch": torch.tensor([True, False, False, True])}).rows(slice(0, 2))
    given = batch.rows(slice(0, 2))
    with torch.no_grad():
        one = model(absent, x[:2], t[:2])[0].value
        dropped = model(given, x[:2], t[:2], {"sketch": torch.tensor([True, False])})[0].value
        both = model(absent, x[:2], t[:2], {"sketch": torch.tensor([False, True])})[0].value
        none = model(given, x[:2], t[:2], {"sketch": torch.zeros(2, dtype=torch.bool)})[0].value
    assert torch.equal(one, dropped) and torch.equal(both, none) and not torch.allclose(one, both)


def test_columns_are_read_without_an_import():
    code = "import sys, ragaf_exp.inference.requests as r; print(r.columns_of('none'), 'torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.stdout.strip().endswith("False") and "'sketch': 'drawing'" in process.stdout, process


@pytest.mark.long
def test_it_learns_to_use_the_known_part(experiment, batch):
    """With caption and sketch dropped, at a timestep that shows little of the image."""
    parts, model = experiment.parts, make_model(experiment.parts, "coarse")
    objective, x_0 = Objective(parts.diffusion, task=parts.task, codec=parts.codec), parts.codec.encode(batch.image)
    optimizer, dropout = torch.optim.AdamW(model.parameters(), lr=3e-3), {"text": 1.0, "sketch": 1.0, "known": 0.0}

    def loss(of: Batch, step: int) -> torch.Tensor:
        noise = sample_step_noise(parts.diffusion, x_0.shape, 1000, dropout, 0.0, torch.Generator().manual_seed(step))
        return objective(model, of, x_0, replace(noise, timesteps=torch.full((len(of),), 950)))["hole"]

    first = float(loss(batch, 0).detach())
    for step in range(60):
        optimizer.zero_grad()
        loss(batch, step).backward()
        optimizer.step()
    with torch.no_grad():
        other = replace(batch, conditions={name: x.roll(1, 0) for name, x in batch.conditions.items()})
        right, wrong = float(loss(batch, 0)), float(loss(other, 0))
    assert right < 0.5 * first and wrong > 2 * right, (first, right, wrong)


# --- data


def test_conditions_are_new_in_every_step_and_fixed_by_index(experiment):
    examples = experiment.train_examples
    by_index, steps = [examples[3] for _ in range(2)], [examples.at(step, 3) for step in (0, 0, 1)]
    assert np.array_equal(by_index[0].conditions["mask"], by_index[1].conditions["mask"])
    assert np.array_equal(steps[0].conditions["mask"], steps[1].conditions["mask"])
    assert any(not np.array_equal(examples.at(s, 3).conditions["mask"], steps[0].conditions["mask"]) for s in range(1, 6))


def test_a_batch_carries_them(batch):
    assert batch.conditions["masked"].shape == (4, 3, 32, 32) and batch.conditions["mask"].shape == (4, 1, 32, 32)
    assert batch.conditions["masked"].min() >= -1 and set(batch.conditions["mask"].unique().tolist()) == {0.0, 1.0}
    some = batch.rows(slice(1, 3))
    assert all(torch.equal(some.conditions[name], x[1:3]) for name, x in batch.conditions.items())
    assert {x.device.type for x in batch.to(torch.device("meta")).conditions.values()} == {"meta"}
    small = batch.smaller(2)
    assert small.conditions["masked"].shape == (4, 3, 16, 16)
    torch.testing.assert_close(small.conditions["mask"].mean(), batch.conditions["mask"].mean())


def test_conditions_of_a_data_source_are_mirrored_with_the_image(experiment):
    item = experiment.train_examples.items[0]
    given = {"light": np.arange(32 * 32, dtype=np.float32).reshape(32, 32), "object": np.zeros((8, 8, 3), np.uint8)}
    (mirrored,) = MirroredItems([replace(item, conditions=given)])
    assert np.array_equal(mirrored.conditions["light"], given["light"][:, ::-1])
    assert mirrored.conditions["object"].shape == (8, 8, 3)


def test_data_without_a_condition_is_refused(experiment, toy_module, monkeypatch):
    monkeypatch.setattr(toy_module.ToyInpaint, "make_conditions", lambda self, example, rng: {"mask": example.sketch})
    with pytest.raises(UserError, match="train split has no masked"):
        experiment.parts.check_splits()


# --- networks and losses


def both(experiment: Training) -> dict[str, Model]:
    return {stage: make_model(experiment.parts, stage) for stage in ("coarse", "refine")}


def test_a_dropped_condition_changes_nothing_and_a_given_one_does(experiment, batch):
    x, t = torch.randn(experiment.parts.codec.latent_shape(batch)), torch.full((4,), 500)
    other = replace(batch, conditions={name: x.flip(0) for name, x in batch.conditions.items()})
    for stage, model in both(experiment).items():
        torch.nn.init.normal_(model.backbone.head.last.weight, std=0.1)
        dropped = {"known": torch.zeros(4, dtype=torch.bool)}
        with torch.no_grad():
            one, two = (model(b, x, t, dropped)[0].value for b in (batch, other))
            three, four = (model(b, x, t)[0].value for b in (batch, other))
        assert torch.equal(one, two) and not torch.allclose(three, four), stage


def test_channels_that_a_backbone_takes_itself_are_concatenated(experiment, batch, monkeypatch):
    model = make_model(experiment.parts, "coarse")
    model.extra_in, taken = None, []
    monkeypatch.setattr(model.backbone, "forward", lambda x, *rest: taken.append(x) or x[:, :48])
    x = torch.randn(experiment.parts.codec.latent_shape(batch))
    model(batch, x, torch.full((4,), 500))
    assert taken[0].shape[1] == x.shape[1] + experiment.parts.task.extra_channels(x.shape[1])
    assert torch.equal(taken[0][:, : x.shape[1]], x)


def test_a_latent_at_the_side_of_x_t_reaches_it(experiment, batch, toy_module, monkeypatch):
    """The layout of insertion: the object lies to the right of the target, and the prediction's left half counts."""
    toy = toy_module.ToyInpaint
    monkeypatch.setattr(toy, "extra_channels", lambda self, channels: 0)
    monkeypatch.setattr(toy, "extra", lambda self, batch, keep, encode: encode(batch.conditions["masked"]))
    monkeypatch.setattr(toy, "to_denoiser", lambda self, x_t, t, extra: torch.cat([x_t, extra], dim=3))
    monkeypatch.setattr(toy, "from_denoiser", lambda self, prediction, x_t: prediction[..., : x_t.shape[3]])
    wide = lambda self, batch, keep: (torch.cat([batch.sketch, batch.conditions["mask"]], dim=3), None)  # noqa: E731
    monkeypatch.setattr(toy, "hint_image", wide)
    model = make_model(experiment.parts, "coarse")
    torch.nn.init.normal_(model.backbone.head.last.weight, std=0.1)
    x, t = torch.randn(experiment.parts.codec.latent_shape(batch)), torch.full((4,), 500)
    other = replace(batch, conditions={name: x.flip(0) for name, x in batch.conditions.items()})
    with torch.no_grad():
        one, two = (model(b, x, t)[0].value for b in (batch, other))
    assert one.shape == x.shape and not torch.allclose(one, two)


def test_step_noise_has_each_condition_and_old_ones_do_not_move():
    shape, rng = torch.Size((500, 1, 1, 1)), torch.Generator
    two = sample_step_noise(Diffusion(), shape, 900, {"text": 0.1, "sketch": 0.2}, 0.0, rng().manual_seed(0))
    dropout = {"text": 0.1, "sketch": 0.2, "known": 0.5}
    three = sample_step_noise(Diffusion(), shape, 900, dropout, 0.0, rng().manual_seed(0))
    assert all(torch.equal(two.keep[name], three.keep[name]) for name in two.keep) and torch.equal(two.noise, three.noise)
    assert float(three.keep["known"].float().mean()) == pytest.approx(0.5, abs=0.08)
    assert torch.equal(three.rows(slice(2, 5)).keep["known"], three.keep["known"][2:5])


def test_a_masked_loss_is_normalised_by_its_mask():
    process, t = Diffusion(min_snr=0), torch.tensor([10, 500])
    target, mask = torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    mask[0, :, :1], mask[1, :, :3] = 1, 1
    error = mask * torch.tensor([2.0, 3.0])[:, None, None, None] + (1 - mask) * 100
    assert float(denoising_loss(process, error.expand_as(target), target, t, mask)) == pytest.approx((4 + 9) / 2)
    assert torch.equal(
        denoising_loss(process, error.expand_as(target), target, t, torch.ones_like(mask)),
        denoising_loss(process, error.expand_as(target), target, t),
    )


def test_a_loss_reads_the_estimate_and_decodes_it(experiment, batch):
    x_0 = experiment.parts.codec.encode(batch.image)
    t, noise = torch.full((4,), 300), torch.randn_like(x_0)
    process = experiment.parts.diffusion
    x_t = process.add_noise(x_0, noise, t)
    right = process.target(x_0, noise, t).requires_grad_()
    step = Denoised(batch, x_0, x_t, t, right, right.detach(), process, experiment.parts.codec.decode)
    image = step.decode(step.estimate)
    torch.testing.assert_close(image, batch.image, atol=1e-3, rtol=0)
    image.sum().backward()
    assert right.grad is not None and right.grad.any()


def test_tokens_distinguish_tasks_and_words_stay_in_place(experiment, batch, toy_module, monkeypatch):
    monkeypatch.setattr(toy_module.ToyInpaint, "tokens", 2)
    model = make_model(experiment.parts, "refine")
    torch.nn.init.normal_(model.backbone.head.last.weight, std=0.1)
    x, t = torch.randn(experiment.parts.codec.latent_shape(batch)), torch.full((4,), 500)
    with torch.no_grad():
        made = [model(replace(batch, task=torch.full((4,), task)), x, t) for task in (0, 1)]
    assert not torch.allclose(made[0][0].value, made[1][0].value)
    assert torch.equal(made[0][1].regions.region_text, made[1][1].regions.region_text), "regions read the caption alone"
    assert made[0][1].denoiser_text.tokens.shape[1] == made[0][1].text.tokens.shape[1] + 1


# --- planner and config


def test_the_planner_s_batch_has_them(experiment):
    planned = largest_batch(2, 32, 3, experiment.parts.task.maps)
    assert {name: x.shape for name, x in planned.conditions.items()} == {"masked": (2, 3, 32, 32), "mask": (2, 1, 32, 32)}


def test_hashes_and_configs_of_before_tasks_had_classes_stay(tiny, tmp_path):
    """Run folders are named by the hash: of the smoke experiment it is the one of version 0.1."""
    assert config_hash(compose_config(["+experiment=smoke"])) == "7fc9da57d7fd"
    cfg = compose_config([*tiny, f"runs={tmp_path}"])
    old = cfg.copy()
    del old.task["_target_"]
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(old, resolve=True))
    read = load_config(tmp_path / "config.yaml")
    assert read == cfg and config_hash(read) == config_hash(cfg)
    other = compose_config([*tiny, *TASK, f"runs={tmp_path}"])
    assert config_hash(other) != config_hash(cfg)


def test_assembly_builds_the_task_of_the_config(experiment, toy_module, tmp_path):
    assert type(experiment.parts.task) is toy_module.ToyInpaint
    parts = assemble(experiment.cfg, RunFolder(tmp_path))
    assert parts.task.dropout == {"text": 0.1, "sketch": 0.1, "known": 0.1}


def test_runs_of_before_are_compared_without_the_difference(tiny, tmp_path):
    cfg = compose_config([*tiny, f"runs={tmp_path}"])
    old = cfg.copy()
    del old.task["_target_"]
    for name, content in (("new", cfg), ("old", old)):
        (tmp_path / name).write_text(OmegaConf.to_yaml(content, resolve=True))
    assert flat_config(tmp_path / "old") == flat_config(tmp_path / "new")
    assert flat_config(tmp_path / "none") == {}


def test_the_layer_of_the_channels_is_trained_first_and_frozen_with_stage_1(experiment):
    for stage, trains in (("coarse", True), ("refine", False)):
        model = make_model(experiment.parts, stage)
        set_trainable(model, stage == "refine", Memory(tune="frozen"))
        assert {p.requires_grad for p in model.extra_in.parameters()} == {trains}
