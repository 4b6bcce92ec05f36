"""Insertion: embedded data, side-by-side inputs, metrics, files, and Stable Diffusion's inpainting layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_sd import save_sd

from eval.insertion import judged
from eval.metrics.shapes import shape_of
from eval.rivals.examples import paste, telea
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Example, Item
from ragaf_exp.data.cutout import cutout, focused
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sources.insertion import NAMES, Insertion
from ragaf_exp.data.sources.shapes import SHAPE_NAMES, SHAPES, pose
from ragaf_exp.evaluation.shuffled import shuffled_images
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.sample import main
from ragaf_exp.tasks.base import Condition
from ragaf_exp.tasks.holes import hidden
from ragaf_exp.tasks.insert import into_box

SHORT = """stage=coarse stage.coarse.steps=60 stage.batch=8 stage.validate_every=60 stage.checkpoint_every=60
    stage.log_every=20 eval.validation_items=8""".split()


def overrides(tiny: list[str], *more: str) -> list[str]:
    words = [*SHORT, *more]
    replaced = {word.partition("=")[0] for word in words}
    return ["+experiment=insert", *(word for word in tiny if word.partition("=")[0] not in replaced), *words]


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Path:
    return run(compose_config([*overrides(tiny), f"runs={tmp_path_factory.mktemp('insert')}"])).path


@pytest.fixture(scope="module")
def items() -> list[Item]:
    split = Insertion().split("test")
    return [split[i] for i in range(40)]


def example_of(item: Item) -> Example:
    hole, thing = item.conditions["hole"], item.conditions["object"]
    given = {"given": hidden(item.image, hole), "hole": hole, "object": thing}
    return Example(item, None, None, None, conditions=given)


# --- embedded data and metrics


def test_items_are_functions_of_seed_split_and_index(items):
    again, other = Insertion().split("test")[3], Insertion(seed=1).split("test")[3]
    assert (items[3].image == again.image).all() and (items[3].conditions["object"] == again.conditions["object"]).all()
    assert (items[3].image != other.image).any()


def test_the_hole_covers_the_object_and_the_caption_does_not_name_it(items):
    for item in items:
        inserted, hole = item.conditions["inserted"] > 0, item.conditions["hole"] > 0
        assert inserted.any() and hole[inserted].all() and hole.mean() < 0.5
        shape, colour, _ = (names[int(i)] for names, i in zip(NAMES, item.conditions["kind"], strict=True))
        named = {(thing.shape, thing.colour) for thing in item.objects}
        assert (shape, colour) not in named or f"{colour} {shape}" in item.caption
        assert not item.object_map[inserted].any(), "its pixels belong to none of the other objects"


def test_truth_is_right_and_a_filled_hole_is_not(items):
    truth = [judged(item.image, example_of(item)) for item in items]
    empty = [judged(telea(example_of(item)), example_of(item)) for item in items]
    for name in ("object_colour", "object_shape", "object_fill"):
        assert np.mean([row[name] for row in truth]) >= 0.95 and np.mean([row[name] for row in empty]) <= 0.1


def test_an_object_is_enlarged_and_a_photograph_stays(items):
    for item in items:
        large = cutout(focused(item.conditions["object"])) > 0
        rows, columns = np.flatnonzero(large.any(1)), np.flatnonzero(large.any(0))
        sides = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert 54 <= max(sides) <= 64 and abs(rows[0] + rows[-1] - 63) <= 6 and abs(columns[0] + columns[-1] - 63) <= 6
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert (focused(noise) == noise).all()


def test_the_paste_has_the_picture_s_shape(items):
    rows = [judged(paste(example_of(item)), example_of(item)) for item in items]
    assert np.mean([row["object_shape"] for row in rows]) > 0.9
    for item in items[:5]:
        example = example_of(item)
        outside = example.conditions["hole"] == 0
        assert (paste(example)[outside] == item.image[outside]).all()
        assert 0.05 < cutout(example.conditions["object"]).mean() < 0.8


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(SHAPE_NAMES), radius=st.floats(9, 28), seed=st.integers(0, 10_000))
def test_shapes_are_recognised_at_any_size(name, radius, seed):
    import cv2

    outline = pose(SHAPES[name], np.random.default_rng(seed), radius) + 32
    mask = np.zeros((64, 64), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 1, shift=4)
    assert shape_of(mask > 0) == name
    assert shape_of(np.zeros((8, 8), bool)) == ""


# --- network


@pytest.mark.long
def test_training_uses_the_object_and_keeps_the_scene(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.6 * losses[0]
    metrics = json.loads((trained / "metrics.json").read_text())["metrics"]
    assert metrics["kept_unchanged"]["value"] == 1
    assert {"object_colour", "object_colour_shuffled", "paste/object_shape", "paste/psnr_hole"} <= set(metrics)
    report = (trained / "report.html").read_text()
    assert "Object&#39;s colour" in report or "Object's colour" in report


@pytest.mark.long
def test_the_object_alone_changes_the_prediction(trained):
    folder, cfg = RunFolder.read(str(trained), edited=True)
    parts, pipeline = load_run(folder, cfg)
    batch = collate(parts.examples("test").first(4))
    other = replace(batch, conditions={**batch.conditions, "object": batch.conditions["object"].roll(1, 0)})
    x, t = torch.randn(parts.codec.latent_shape(batch)), torch.full((4,), 500)
    with torch.no_grad():
        one, again, two = (pipeline.last(each, x, t)[0].value for each in (batch, batch, other))
    assert one.shape == x.shape and torch.equal(one, again) and not torch.allclose(one, two, atol=1e-4)


def test_both_stages_have_regions_of_the_scene_alone(tiny, tmp_path):
    words = overrides(tiny, "stage=both", "stage.refine.coarse_input=true", "task.side=true")
    cfg = compose_config([*words, f"runs={tmp_path}"])
    experiment = Training(cfg, RunFolder.create(cfg))
    batch = collate([experiment.train_examples.at(0, i) for i in range(2)])
    model = make_model(experiment.parts, "refine")
    regions = model.condition(batch).region_state
    wide = regions.soft_masks[8, 16]
    assert not wide[..., 8:].any() and torch.equal(wide[..., :8], regions.soft_masks[8, 8])
    latent = torch.randn(experiment.parts.codec.latent_shape(batch))
    assert model(batch, latent, torch.full((2,), 500), start=latent)[0].value.shape == latent.shape


@settings(max_examples=30, deadline=None)
@given(top=st.integers(0, 20), left=st.integers(0, 20), rows=st.integers(4, 12), columns=st.integers(4, 12))
def test_a_collage_covers_the_hole_with_the_whole_picture(top, left, rows, columns):
    """A ramp from 0 to 1 across the picture is one across the longer side of the hole."""
    ramp = ((torch.arange(32.0) + 0.5) / 32).expand(1, 1, 32, 32)
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., top : top + rows, left : left + columns] = 1
    row = into_box(ramp, hole)[0, 0, top, left : left + columns]
    side = max(rows, columns)
    wanted = 0.5 + (torch.arange(columns) + 0.5 - columns / 2) / side
    torch.testing.assert_close(row, wanted.clamp(0.5 / 32, 1 - 0.5 / 32), atol=1e-4, rtol=0)


def test_neither_way_is_one_line(tiny, tmp_path):
    with pytest.raises(UserError, match="the network sees no object; set task.collage=true"):
        run(compose_config([*overrides(tiny), "task.side=false", "task.collage=false", f"runs={tmp_path}"]))


def test_shuffling_exchanges_one_condition():
    items = [Item(str(i), np.zeros((4, 4, 3), np.uint8), "") for i in range(5)]
    given = [{"object": np.full((4, 4, 3), i, np.uint8), "hole": np.full((4, 4), i, np.float32)} for i in range(5)]
    examples = [Example(item, None, None, None, conditions=c) for item, c in zip(items, given, strict=True)]

    class Cache:
        def batch(self, names, sample):
            return sample()

    class Row:
        key = image = sketch = ""

    taken = []

    def sample(some):
        taken.extend(int(e.conditions["hole"][0, 0]) for e in some)
        return SampledImages({"stage1": np.stack([e.conditions["object"] for e in some])})

    condition = Condition("object", 0.0, maps={"object": 3})
    images = shuffled_images(examples, [Row()] * 5, [[0, 2, 4], [1, 3]], condition, Cache(), sample)
    assert [int(image[0, 0, 0]) for image in images] == [3, 4, 0, 1, 2] and taken == [0, 2, 4, 1, 3]


# --- files


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 100, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(rng.integers(0, 256, (50, 30, 3), dtype=np.uint8)).save(tmp_path / "object.png")
    mask = np.zeros((70, 100), np.uint8)
    mask[20:40, 30:60] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return {path.stem: path for path in tmp_path.glob("*.png")}


@pytest.mark.long
def test_an_object_is_inserted_into_a_file(cli, refused, trained, files, tmp_path):
    named = [f"image={files['image']}", f"mask={files['mask']}"]
    status, _, err = cli(main, f"run={trained}", f"out={tmp_path / 'out'}", *named, f"object={files['object']}")
    assert status == 0, err
    hole, before = np.asarray(Image.open(files["mask"])) > 0, np.asarray(Image.open(files["image"]))
    after = np.asarray(Image.open(tmp_path / "out/result.png"))
    assert (after[~hole] == before[~hole]).all() and (after[hole] != before[hole]).mean() > 0.5
    assert json.loads((tmp_path / "out/result.json").read_text())["object"] == str(files["object"])
    refused(main, f"run={trained}", f"out={tmp_path}", *named, says=("object=: missing",))
    refused(main, f"run={trained}", f"out={tmp_path}", *named, "object=absent.png", says=("absent.png",))


@pytest.mark.long
def test_a_batch_of_insertions(cli, trained, files, tmp_path):
    (tmp_path / "rows.csv").write_text("image,mask,object\nimage.png,mask.png,object.png\nimage.png,mask.png,image.png\n")
    status, _, err = cli(main, f"run={trained}", f"out={tmp_path / 'out'}", f"batch={tmp_path / 'rows.csv'}")
    assert status == 0, err
    first, second = (np.asarray(Image.open(tmp_path / f"out/000{i}/result.png")) for i in range(2))
    assert (first != second).any(), "the object is the only difference"


def triples(shared: Path, folder: Path) -> Path:
    """A table of the real triples: scenes, references and masks at one size for each row."""
    source = shared / "inpaint" / "PaintByExample"
    rows = ["target_image,object_image,mask"]
    for number in (1, 2, 3):
        for kind, name in (("image", f"example_{number}.png"), ("mask", f"example_{number}.png")):
            picture = Image.open(source / kind / name).convert("RGB" if kind == "image" else "L")
            picture.resize((128, 128), Image.NEAREST).save(folder / f"{kind}{number}.png")
        rows.append(f"image{number}.png,{source / 'reference' / f'example_{number}.jpg'},mask{number}.png")
    (folder / "rows.csv").write_text("\n".join(rows * 1) + "\n")
    return folder / "rows.csv"


@pytest.mark.long
def test_users_triples_train(tiny, shared_data, tmp_path):
    table = triples(shared_data, tmp_path)
    own = ["data=edits", f"data.table={table}", "data.val_share=0.34", "data.test_share=0.34", "sketch=canny"]
    words = [w for w in overrides(tiny, *own, "stage.coarse.steps=2") if w.partition("=")[0] not in
             ("data.train", "data.val", "data.test", "data.size")]  # fmt: skip
    path = run(compose_config([*words, "data.size=32", f"runs={tmp_path / 'runs'}"])).path
    metrics = json.loads((path / "metrics.json").read_text())["metrics"]
    assert metrics["kept_unchanged"]["value"] == 1 and metrics["paste/psnr_hole"]["n"] == 1
    assert "object_colour" not in metrics, "a photograph has no annotation"


def test_a_table_without_objects_is_one_line(tiny, shared_data, tmp_path):
    table = triples(shared_data, tmp_path)
    table.write_text(table.read_text().replace("object_image", "comment"))
    words = [w for w in overrides(tiny, "sketch=canny") if not w.startswith("data.")]
    with pytest.raises(UserError, match="has no object; take data=insertion, or data=edits"):
        run(compose_config([*words, "data=edits", f"data.table={table}", f"runs={tmp_path / 'runs'}"]))


# --- Stable Diffusion


def small_sd(tiny: list[str], tmp_path: Path) -> list[str]:
    """Overrides of the 8gb profile with a small random inpainting folder, on the CPU."""
    folder = save_sd(tmp_path / "sd", inpaint=True)
    drop = ("backbone", "text", "codec", "hint", "memory")
    words = [w for w in overrides(tiny, "stage.coarse.steps=2") if w.partition(".")[0] not in drop]
    return [*words, *f"""memory=8gb backbone=sd15_inpaint backbone.source={folder} codec=kl memory.budget=0
        memory.device=cpu memory.precision=no memory.optimizer=adamw memory.attention=self stage.accumulate=2
        stage.batch=4 data.size=64 hint.width=16 eval.test_items=2 task.side=true task.collage=false
        runs={tmp_path / "runs"}""".split()]  # fmt: skip


def test_the_inpainting_unet_sees_nine_channels_side_by_side(tiny, tmp_path, monkeypatch):
    """x_t | object, hole | 0, scene | object, as 4 + 1 + 4 channels."""
    cfg = compose_config(small_sd(tiny, tmp_path))
    experiment = Training(cfg, RunFolder.create(cfg))
    batch = collate([experiment.train_examples.at(0, i) for i in range(2)])
    model, inputs = make_model(experiment.parts, "coarse"), []
    assert model.extra_in is None
    monkeypatch.setattr(model.backbone.unet.conv_in, "forward",
                        lambda x: inputs.append(x) or torch.zeros(len(x), 32, *x.shape[2:]))  # fmt: skip
    x = torch.randn(experiment.parts.codec.latent_shape(batch))
    model(batch, x, torch.full((2,), 500))
    (x_in,), width = inputs, x.shape[3]
    assert x_in.shape == (2, 9, x.shape[2], 2 * width) and torch.equal(x_in[:, :4, :, :width], x)
    assert not x_in[:, 4, :, width:].any() and set(x_in[:, 4, :, :width].unique().tolist()) == {0.0, 1.0}
    thing = experiment.parts.codec.encode(batch.conditions["object"])
    torch.testing.assert_close(x_in[:, 5:, :, width:], thing)


@pytest.mark.long
def test_the_8gb_profile_trains_self_attention_alone_on_triples(tiny, shared_data, cli, files, tmp_path):
    own = ["data=edits", f"data.table={triples(shared_data, tmp_path)}", "data.val_share=0.34", "data.test_share=0.34"]
    words = [w for w in small_sd(tiny, tmp_path) if w.partition("=")[0] not in ("data.train", "data.val", "data.test")]
    path = run(compose_config([*words, *own, "sketch=canny"])).path
    weights = load_newest(path / "checkpoints", "coarse", parts=("model",)).model
    in_unet = {name for name in weights if name.startswith("backbone.unet")}
    assert in_unet and all(".attn1." in name for name in in_unet), "the rest stays in the source's folder"
    named = [f"image={files['image']}", f"mask={files['mask']}", f"object={files['object']}"]
    status, _, err = cli(main, f"run={path}", f"out={tmp_path / 'out'}", "steps=2", *named)
    assert status == 0, err
    after, before = (np.asarray(Image.open(f)) for f in (tmp_path / "out/result.png", files["image"]))
    hole = np.asarray(Image.open(files["mask"])) > 0
    assert (after[~hole] == before[~hole]).all() and (after[hole] != before[hole]).mean() > 0.5
