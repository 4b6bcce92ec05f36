"""Buckets of the official layouts: each picture gets the size of its aspect, with its drawing, masks and crop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import data_layouts
import numpy as np
import pytest
from PIL import Image, ImageDraw
from test_buckets import run_with_crashes, weights

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.buckets import groups_of
from ragaf_exp.data.decode import decode, upright_size
from ragaf_exp.data.fit import fit_photo
from ragaf_exp.data.sources.coco import Coco
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.encoder_cache.fill import pixels_of

FILES = [(42, 56), (56, 42), (45, 45)]  # height, width
BUCKETS = {(42, 56): (24, 40), (56, 42): (40, 24), (45, 45): (32, 32)}
ORIENTATION, TURNED = 0x0112, 6


@pytest.fixture
def mixed() -> Iterator[None]:
    """The layouts hold pictures of three aspects."""
    with data_layouts.sizes(*FILES):
        yield


def vectors(root: Path) -> list[str]:
    """FS-COCO with its vector sketches."""
    return [*data_layouts.fscoco(root), "data.vector=true"]


SOURCES: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "coco": ("coco", data_layouts.coco),
    "sketchycoco": ("sketchycoco", data_layouts.sketchycoco),
    "fscoco": ("fscoco", data_layouts.fscoco),
    "fscoco vectors": ("fscoco", vectors),
    "hf": ("hf", data_layouts.hf),
}


def source(root: Path, name: str, *more: str) -> Any:
    kind, write = SOURCES[name]
    words = write(root / kind)
    return build(compose_config([f"data={kind}", *words, "data.size=32", "data.buckets=true", *more]).data, "data")


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_each_picture_gets_the_size_of_its_aspect(mixed, tmp_path, name, fit):
    made = source(tmp_path, name, f"data.fit={fit}")
    for split in ("train", "val", "test"):
        items = made.split(split)
        for item, size, record in zip(items, items.sizes, made.records_of(split), strict=True):
            whole = decode(*made.file_of(record))[0]
            assert size == BUCKETS[whole.shape[:2]] and np.array_equal(item.image, fit_photo(whole, size, fit))
            assert item.drawing is None or item.drawing.shape == size
            assert (item.crop is None) == (fit == "pad") and (item.crop is None or item.crop.whole == whole.shape[:2])
    assert len(groups_of(made.split("train"))) == 3
    assert pixels_of(made) == "/8/bicubic"


@pytest.mark.parametrize("name", ["coco", "fscoco"])
def test_nothing_is_enlarged_and_the_networks_decide_the_steps(mixed, tmp_path, name):
    kind, write = SOURCES[name]
    words = [f"data={kind}", *write(tmp_path / kind), "data.size=64", "data.buckets=true"]
    small = build(compose_config(words).data, "data")
    assert {size for size in small.split("train").sizes} == {(40, 56), (56, 40), (40, 40)}
    large = build(compose_config([*words, "data.upscale=true"]).data, "data")
    large.set_unit(16)
    sizes = large.split("train").sizes
    assert all(side % 16 == 0 for size in sizes for side in size) and (64, 64) in sizes
    assert [item.image.shape[:2] for item in large.split("train")] == list(sizes)


def test_extended_photos_of_sketchy_keep_their_aspect(mixed, tmp_path):
    words = data_layouts.sketchy(tmp_path / "sketchy")
    for number in range(6):
        data_layouts.save(data_layouts.photo(number), tmp_path / "more" / "scissors" / f"x_{number}.jpg")
    cfg = compose_config(["data=sketchy", *words, f"data.extended={tmp_path / 'more'}", "data.size=32",
                          "data.buckets=true", "data.val_share=0", "data.test_share=0"])  # fmt: skip
    items = build(cfg.data, "data").split("train")
    assert set(items.sizes) == set(BUCKETS.values())
    assert all(items[i].image.shape[:2] == size for i, size in enumerate(items.sizes))


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("turned", [False, True])
def test_masks_lie_on_the_things_of_any_aspect(mixed, tmp_path, fit, turned):
    data_layouts.coco(tmp_path)
    for thing in json.loads((tmp_path / "annotations" / "instances_train2017.json").read_text())["annotations"]:
        height, width = data_layouts.size_of(thing["image_id"])
        picture = Image.new("RGB", (width, height), (60, 90, 60))
        ImageDraw.Draw(picture).polygon(thing["segmentation"][0], fill=(220, 20, 20))
        exif = picture.getexif()
        exif[ORIENTATION] = TURNED if turned else 1
        picture.save(tmp_path / "train2017" / f"{thing['image_id']:012d}.jpg", exif=exif, quality=95)
    items = Coco(str(tmp_path), size=64, fit=fit, buckets=True, upscale=True).split("train")
    assert len(set(items.sizes)) == 3
    for item in items:
        assert item.object_map.shape == item.image.shape[:2] and [thing.shape for thing in item.objects] == ["dog"]
        red, inside = item.image[..., 0] > 140, item.object_map > 0
        assert (red & inside).sum() / (red | inside).sum() > 0.85


def test_a_damaged_header_is_named_at_the_start(mixed, tmp_path):
    data_layouts.coco(tmp_path)
    path = next((tmp_path / "train2017").iterdir())
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=rf"1 of 30 items can't be used: train2017/{path.stem}: .*is not an image"):
        Coco(str(tmp_path), size=32, buckets=True)
    assert Coco(str(tmp_path), size=32, buckets=True, on_error="skip").skipped == 1


@pytest.mark.parametrize("name", ["tuberlin", "quickdraw"])
@pytest.mark.parametrize("key", ["buckets", "upscale", "crop_input"])
def test_sources_of_one_size_refuse_buckets(tmp_path, name, key):
    with pytest.raises(UserError, match=f"data.{key}: all pictures of this source have one size; leave it out"):
        compose_config([f"data={name}", f"data.root={tmp_path}", f"data.{key}=true"])


@pytest.mark.parametrize("name", ["coco", "sketchy", "sketchycoco", "fscoco", "hf"])
def test_hashes_stay_without_buckets(name):
    cfg = compose_config([f"data={name}"])
    before = config_hash(cfg)
    for key in ("buckets", "upscale", "crop_input"):
        del cfg.data[key]
    assert config_hash(cfg) == before, "as before there were such keys"


def test_the_part_shown_is_an_input_also_of_squares(mixed, tmp_path):
    data_layouts.coco(tmp_path)
    item = Coco(str(tmp_path), size=32, crop_input=True).split("train")[0]
    assert item.image.shape == (32, 32, 3) and item.crop.height == item.crop.width == min(item.crop.whole)
    assert Coco(str(tmp_path), size=32).split("train")[0].crop is None
    path = tmp_path / "train2017" / f"{item.key.rpartition('/')[2]}.jpg"
    assert item.crop.whole == upright_size(path)


@pytest.mark.process
@pytest.mark.parametrize("name", ["coco", "fscoco"])
def test_a_run_resumes_to_the_byte(mixed, tiny, tmp_path, monkeypatch, name):
    kind, write = SOURCES[name]
    plain = [word for word in tiny if not word.startswith(("data.train", "data.val", "data.test"))]
    words = [*plain, f"data={kind}", *write(tmp_path / kind), "data.buckets=true", "data.crop_input=true", "sketch=canny"]
    whole = run(compose_config([*words, f"runs={tmp_path / 'a'}"])).path
    assert json.loads((whole / "metrics.json").read_text())["metrics"]["mse"]["resolution"] == "buckets of 32"
    path, sizes = run_with_crashes(compose_config([*words, f"runs={tmp_path / 'b'}"]), monkeypatch)
    again = weights(path)
    assert len(set(sizes)) == 3, "of all sizes"
    assert all(again[key] == content for key, content in weights(whole).items() if "optimizer" not in key)


def test_the_model_sees_batches_of_one_size(mixed, tiny, tmp_path):
    plain = [word for word in tiny if not word.startswith(("data.train", "data.val", "data.test"))]
    cfg = compose_config([*plain, "data=coco", *data_layouts.coco(tmp_path / "coco"), "data.buckets=true", "sketch=canny"])
    parts = assemble(cfg, RunFolder(tmp_path))
    examples = parts.examples("train")
    for group in groups_of(examples.items):
        assert len({examples.at(3, int(i)).sketch.shape for i in group}) == 1
