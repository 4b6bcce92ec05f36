"""Buckets: sizes of about equal area, images fitted to them, the order of batches, and whole runs on mixed sizes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Crop, Item
from ragaf_exp.data.buckets import Buckets, batches_of, bucket_order, bucket_sizes, groups_of, items_of
from ragaf_exp.data.loader import collate
from ragaf_exp.data.sources.folder import Folder
from ragaf_exp.data.variants import CroppedItems, MirroredItems
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.mixed_sizes import sample_images
from ragaf_exp.inference.pipeline import SampledImages
from ragaf_exp.models.codecs.pixel import Pixel
from ragaf_exp.plan.dummies import planned_size
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.encoder_cache import fill
from ragaf_exp.training.encoder_cache.features import Latents
from ragaf_exp.training.trainer import Trainer

SIZES = {"tall": (60, 40), "wide": (40, 60), "square": (48, 48), "small": (20, 30), "strip": (24, 200)}  # height, width


def test_the_sizes_at_512_in_steps_of_64():
    buckets = Buckets(512)
    buckets.set_unit(8)  # a smaller unit changes nothing at 512
    assert buckets.step == 64 and (512, 512) in buckets.sizes and buckets.largest() == (512, 512)
    assert {(256, 1024), (384, 640), (640, 384), (1024, 256)} <= set(buckets.sizes)
    assert buckets.fit(480, 640) == (448, 576) and buckets.fit(3000, 2000) == (640, 384)
    buckets.set_unit(128)
    assert buckets.step == 128 and all(side % 128 == 0 for size in buckets.sizes for side in size)


@given(size=st.integers(16, 600), unit=st.sampled_from([4, 8, 16, 24, 64]))
def test_sizes_are_of_about_equal_area(size, unit):
    sizes = bucket_sizes(size, unit)
    assert all(height % unit == width % unit == 0 for height, width in sizes)
    assert set(sizes) == {(width, height) for height, width in sizes}, "every size also lies on its side"
    if size >= 2 * unit:
        assert all(height * width <= size * size for height, width in sizes)
        assert all(height * width > size * size - 2 * size * unit for height, width in sizes)
        assert size % unit or (size, size) in sizes


@given(height=st.integers(1, 900), width=st.integers(1, 900), unit=st.sampled_from([8, 16]), upscale=st.booleans())
def test_nothing_is_enlarged_unless_that_is_wanted(height, width, unit, upscale):
    buckets = Buckets(128, upscale)
    buckets.set_unit(unit)
    rows, columns = buckets.fit(height, width)
    assert rows % unit == columns % unit == 0 and rows * columns <= 128 * 128
    if upscale:
        assert (rows, columns) in buckets.sizes
    else:
        assert rows <= max(height, unit) and columns <= max(width, unit)


GROUPS = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@settings(deadline=None)
@given(counts=GROUPS, batch=st.integers(1, 12), seed=st.integers(0, 9), start=st.integers(0, 200))
def test_the_order_is_a_function_of_the_step(counts, batch, seed, start):
    groups = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    everything = list(bucket_order(groups, [batch] * len(groups), seed, range(start + 4)))
    assert list(bucket_order(groups, [batch] * len(groups), seed, range(start, start + 4))) == everything[start:]
    for rows in everything:
        assert len(rows) == batch
        assert len({next(g for g, members in enumerate(groups) if row in members) for row in rows}) == 1


@settings(deadline=None)
@given(counts=GROUPS, batch=st.sampled_from([2, 4, 6]), ranks=st.sampled_from([1, 2]), step=st.integers(0, 50))
def test_processes_share_each_batch(counts, batch, ranks, step):
    groups = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    batches, steps = [batch] * len(groups), range(step, step + 1)
    (whole,) = bucket_order(groups, batches, 3, steps)
    parts = [next(bucket_order(groups, batches, 3, steps, rank, ranks)) for rank in range(ranks)]
    assert [parts[i % ranks][i // ranks] for i in range(batch)] == whole


def test_every_item_comes_equally_often():
    groups = [np.arange(7), np.arange(7, 10), np.arange(10, 33)]
    batch, epochs = 4, 40
    steps = sum(epochs * len(group) // batch for group in groups)
    counts = Counter(row for rows in bucket_order(groups, [batch] * len(groups), 0, range(steps)) for row in rows)
    assert set(counts) == set(range(33)) and epochs - 1 <= min(counts.values()) and max(counts.values()) <= epochs
    first = [rows[0] for rows in islice(bucket_order(groups, [batch] * len(groups), 0, range(steps)), 30)]
    assert len({next(g for g, members in enumerate(groups) if row in members) for row in first}) == 3, "they are mixed"


@settings(deadline=None)
@given(counts=GROUPS, seed=st.integers(0, 9), start=st.integers(0, 100), data=st.data())
def test_groups_may_differ_in_their_batch_size(counts, seed, start, data):
    groups = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    batches = data.draw(st.lists(st.integers(1, 12), min_size=len(counts), max_size=len(counts)))
    everything = list(bucket_order(groups, batches, seed, range(start + 4)))
    assert list(bucket_order(groups, batches, seed, range(start, start + 4))) == everything[start:]
    for rows in everything:
        (group,) = {next(g for g, members in enumerate(groups) if row in members) for row in rows}
        assert len(rows) == batches[group]


def test_items_come_equally_often_whatever_the_batch_of_their_size():
    groups, batches, epochs = [np.arange(7), np.arange(7, 10), np.arange(10, 33)], [2, 5, 3], 40
    steps = sum(epochs * len(group) // batch for group, batch in zip(groups, batches, strict=True))
    counts = Counter(row for rows in bucket_order(groups, batches, 0, range(steps)) for row in rows)
    assert set(counts) == set(range(33)) and epochs - 1 <= min(counts.values()) and max(counts.values()) <= epochs


@given(tokens=st.integers(1, 9999), rows=st.integers(1, 40), columns=st.integers(1, 40), ranks=st.integers(1, 4))
def test_a_step_has_at_most_its_tokens(tokens, rows, columns, ranks):
    size, each = (16 * rows, 16 * columns), rows * columns
    if tokens < ranks * each:
        with pytest.raises(UserError, match=f"stage.tokens={tokens}: .* set at least {ranks * each},"):
            items_of(tokens, size, 16, ranks)
        return
    items = items_of(tokens, size, 16, ranks)
    assert items % ranks == 0 and items * each <= tokens < (items + ranks) * each


def test_batches_of_one_size_come_in_order():
    assert batches_of(["a"] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert batches_of(["a", "b", "a", "b", "a"], 2) == [[0, 2], [4], [1, 3]]


def write(folder: Path, copies: int = 3) -> Path:
    """Folders train, validation and test of images of all SIZES: a disc on a plain ground."""
    for split, count in {"train": copies, "validation": 1, "test": 1}.items():
        place = folder / split
        place.mkdir(parents=True)
        rows = []
        for name, (height, width) in SIZES.items():
            for copy in range(count):
                picture = np.full((height, width, 3), 230 - 9 * copy, np.uint8)
                cv2.circle(picture, (width // 2, height // 2), min(height, width) // 3, (200, 10 * copy, 20), -1)
                Image.fromarray(picture).save(place / f"{name}{copy}.png")
                rows.append({"file_name": f"{name}{copy}.png", "text": f"a red disc, {name}"})
        (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("mixed") / "data")


@pytest.mark.parametrize("check", [True, False])
def test_a_folder_fits_each_image_to_its_bucket(root, check):
    folder = Folder(str(root), size=32, buckets=True, check=check)
    items = folder.split("train")
    returned = {item.key.split("#")[0][: -len("0.png")]: item for item in items}
    assert [item.image.shape[:2] for item in items] == list(items.sizes)
    shapes = {Path(name).name: item.image.shape[:2] for name, item in returned.items()}
    assert shapes == {"tall": (40, 24), "wide": (24, 40), "square": (32, 32), "small": (16, 24), "strip": (16, 64)}
    crop = next(item.crop for name, item in returned.items() if "small" in name)
    assert (crop.height, crop.width, crop.whole) == (20, 30, (20, 30)), "its aspect is the bucket's"
    strip = next(item.crop for name, item in returned.items() if "strip" in name)
    assert strip == Crop(0, 52, 24, 96, (24, 200)) and strip.cut == pytest.approx((0, 0.26, 0, 0.26))
    assert {len(group) for group in groups_of(items)} == {3} and len(groups_of(items)) == 5


def test_the_unit_of_the_networks_decides_the_sizes(root):
    folder = Folder(str(root), size=32, buckets=True, upscale=True)
    folder.set_unit(16)
    items = folder.split("test")
    assert all(side % 16 == 0 for size in items.sizes for side in size)
    assert [item.image.shape[:2] for item in items] == list(items.sizes)


def test_a_turned_photo_gets_the_bucket_of_what_it_shows(tmp_path):
    picture = Image.fromarray(np.full((40, 60, 3), 90, np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    picture.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "grey"}')
    for check in (True, False):
        items = Folder(str(tmp_path), size=32, buckets=True, check=check).split("train")
        assert list(items.sizes) == [(40, 24)] and items[0].image.shape == (40, 24, 3)


def test_crops_follow_mirrors_and_further_crops():
    crop = Crop(0, 10, 40, 60, (40, 100))
    item = Item("a", np.zeros((20, 30, 3), np.uint8), "", crop=crop)
    assert MirroredItems([item])[0].crop == replace(crop, left=30)
    inner = CroppedItems([item], 1, 0)[0].crop
    assert inner.whole == (40, 100) and crop.left <= inner.left and inner.left + inner.width <= 70 + 1
    assert 0.7 * 60 <= inner.width <= 60 and 0.7 * 40 <= inner.height <= 40


def options(tiny: list[str], root: Path, runs: Path, *more: str) -> list[str]:
    plain = [word for word in tiny if not word.startswith(("data.train", "data.val", "data.test"))]
    return [*plain, "data=folder", f"data.root={root}", "data.buckets=true", "sketch=canny", f"runs={runs}", *more]


def weights(folder: Path) -> dict[str, bytes]:
    newest = {stage: max((folder / "checkpoints" / stage).iterdir()) for stage in ("coarse", "refine")}
    return {
        f"{stage}/{file.name}": file.read_bytes() for stage, path in newest.items() for file in path.glob("*.safetensors")
    }


def run_with_crashes(cfg, monkeypatch) -> tuple[Path, list[tuple[int, int]]]:
    """Run a config that crashes in each stage once; returns its folder, and the image sizes of all steps."""
    sizes, step = [], Trainer.step

    def crashing(self, number, batch):
        sizes.append(tuple(batch.image.shape[2:]))
        if len(sizes) in (5, 12):
            raise RuntimeError("crashed")
        step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", crashing)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="crashed"):
            run(cfg)
    return run(cfg).path, sizes


@pytest.mark.process
def test_a_run_on_buckets_is_trained_and_evaluated_and_resumes_to_the_byte(tiny, root, tmp_path, monkeypatch):
    whole = run(compose_config(options(tiny, root, tmp_path / "a"))).path
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["metrics"]["mse"]["n"] == 4 and metrics["metrics"]["mse"]["resolution"] == "buckets of 32"
    assert (whole / "report.html").is_file() and (whole / "samples/test/grid.png").is_file()
    again, sizes = run_with_crashes(compose_config(options(tiny, root, tmp_path / "b")), monkeypatch)
    assert len(sizes) > 12 and weights(again).keys() == weights(whole).keys()
    assert all(weights(again)[name] == content for name, content in weights(whole).items() if "optimizer" not in name)


TOKENS = 36  # of 8x8 pixels: a square of 32x32 has 16, a small image 6


@pytest.mark.long
def test_a_run_counts_the_tokens_of_its_steps(tiny, root, tmp_path, monkeypatch):
    """Small images come in larger batches, in one and in two micro-batches alike."""
    sizes, step = [], Trainer.step

    def recording(self, number, batch):
        if number >= self.plan.region_steps:
            sizes.append((len(batch), batch.image.shape[2] // 8 * (batch.image.shape[3] // 8)))
        step(self, number, batch)

    monkeypatch.setattr(Trainer, "step", recording)
    more = [f"stage.tokens={TOKENS}", "stage.coarse.steps=12", "stage.accumulate=2", "stage.batch=3", "eval.test_items=2"]
    run(compose_config(options(tiny, root, tmp_path, *more)))
    assert all(items * each <= TOKENS < (items + 1) * each for items, each in sizes)
    assert len({items for items, _ in sizes}) > 1


def test_fewer_tokens_than_an_image_has_are_refused(tiny, root, tmp_path):
    cfg = compose_config(options(tiny, root, tmp_path, "stage.tokens=15"))
    with pytest.raises(UserError, match="stage.tokens=15: an image of .* pixels has 16 tokens; set at least 16, or"):
        run(cfg)


@pytest.mark.long
def test_tokens_count_without_buckets_too(tiny, tmp_path, monkeypatch):
    counts, step = set(), Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, number, batch: (counts.add(len(batch)), step(self, number, batch)))
    with_tokens = compose_config([*tiny, "stage=coarse", "stage.tokens=48", f"runs={tmp_path}"])
    run(with_tokens)
    assert counts == {3}
    assert config_hash(with_tokens) != config_hash(compose_config([*tiny, "stage=coarse"]))


def test_the_crop_is_an_input_that_starts_without_effect(tiny, root, tmp_path):
    parts = assemble(compose_config(options(tiny, root, tmp_path, "data.crop_input=true")), RunFolder(tmp_path))
    plain = assemble(compose_config(options(tiny, root, tmp_path)), RunFolder(tmp_path))
    for stage in ("coarse", "refine"):
        model, without = make_model(parts, stage), make_model(plain, stage)
        assert set(model.state_dict()) - set(without.state_dict()) == {"crop_in.weight"}
        rows = [e for e in parts.examples("train").first(15) if "strip" in e.item.key][:2]
        batch = collate(rows)
        assert batch.crops.tolist()[0] == pytest.approx([0, 0.26, 0, 0.26])
        x, t = torch.randn(parts.codec.latent_shape(batch)), torch.tensor([100, 800])
        before = model(batch, x, t)[0].value
        assert torch.equal(before, without(batch, x, t)[0].value)
        torch.nn.init.ones_(model.crop_in.weight)
        assert not torch.allclose(model(batch, x, t)[0].value, before)
        whole = replace(batch, crops=torch.zeros(2, 4))
        assert torch.equal(model(whole, x, t)[0].value, model(replace(batch, crops=None), x, t)[0].value)


def test_the_planner_plans_the_largest_bucket(tiny, root, tmp_path):
    cfg = compose_config(options(tiny, root, tmp_path))
    model = make_model(assemble(cfg, RunFolder(tmp_path)), "coarse")
    assert planned_size(cfg, model) == (32, 32)
    cfg.data.size = 44  # no multiple of 8: the largest bucket is no square
    height, width = planned_size(cfg, model)
    assert height * width == max(h * w for h, w in bucket_sizes(44, 8)) and height != width


def test_latents_of_each_size_have_records_of_their_own(tmp_path):
    latents = Latents(tmp_path, Pixel(4), 32)
    images = [np.full((h, w, 3), i, np.uint8) for i, (h, w) in enumerate([(32, 32), (24, 40), (24, 40)])]
    latents.compute(images, torch.device("cpu"))
    for records in latents.every():
        records.flush()
    again = Latents(tmp_path, Pixel(4), 32)
    for image in images:
        again.of_size(*image.shape[:2])
    for records in again.every():
        records.refresh()
    assert len(again.every()) == 2 and all(again.has(image) for image in images)
    assert again.of(images[1:]).shape == (2, 48, 6, 10) and again.of(images[:1]).shape == (1, 48, 8, 8)


def test_the_encoder_cache_is_filled_with_all_sizes(tiny, root, tmp_path):
    more = [
        "codec=taesd",
        "codec.weights=none",
        "backbone.head_width=0",
        "memory.features=latents",
        f"cache.folder={tmp_path}",
    ]
    cfg = compose_config(options(tiny, root, tmp_path, *more))
    parts = assemble(cfg, RunFolder(tmp_path))
    featured = fill.prepare(cfg, parts, torch.device("cpu"))
    examples = parts.examples("train")
    shapes, groups = set(), groups_of(examples.items)
    for rows in islice(bucket_order(groups, [2] * len(groups), 0, range(20)), 20):
        batch = featured([examples[i] for i in rows])
        torch.testing.assert_close(batch.latent, parts.codec.encode(batch.image), rtol=0, atol=1e-5)
        shapes.add(tuple(batch.latent.shape[2:]))
    assert shapes == {(size[0] // 8, size[1] // 8) for size in examples.items.sizes} and len(shapes) > 2


def test_samples_of_mixed_sizes_keep_the_order(tiny, root, tmp_path):
    parts = assemble(compose_config(options(tiny, root, tmp_path)), RunFolder(tmp_path))
    examples = parts.examples("test").first(5)

    class Echo:
        last = SimpleNamespace(needs_spans=False)

        def __call__(self, batch):
            images = ((batch.image + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            return type("Tensors", (), {"to_images": lambda self: SampledImages({"stage1": images})})()

    returned = sample_images(Echo(), examples)
    assert list(returned.images) == ["stage1"] and len(returned.final) == 5
    assert all(np.array_equal(image, e.item.image) for image, e in zip(returned.final, examples, strict=True))


def test_a_curriculum_is_refused_and_hashes_stay(tiny, root, tmp_path):
    with pytest.raises(UserError, match="data.buckets=true: not with stage.curriculum"):
        compose_config(options(tiny, root, tmp_path, "stage.curriculum=0.5"))
    with_buckets = compose_config(options(tiny, root, tmp_path))
    without = compose_config(options(tiny, root, tmp_path, "data.buckets=false"))
    before = config_hash(without)
    assert before != config_hash(with_buckets)
    for key in ("buckets", "upscale", "crop_input"):
        del without.data[key]
    assert config_hash(without) == before, "as before there were such keys"
