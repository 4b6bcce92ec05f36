"""COCO in its official layout: captions, masks of the things they name, odd images, and start-up on large listings."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Graph, Regions
from ragaf_exp.data.decode import decode
from ragaf_exp.data.loader import Examples, Preparer, region_spans
from ragaf_exp.data.recaptioned import Recaptioned
from ragaf_exp.data.sources import annotation_index, json_array
from ragaf_exp.data.sources.annotation_index import AnnotationIndex
from ragaf_exp.data.sources.coco import Coco
from ragaf_exp.data.sources.json_array import array_items, array_values, as_utf8
from ragaf_exp.data.sources.mask_maps import decode_rle, draw_annotations, warp_nearest, window
from ragaf_exp.data.sources.mentions import mentions, plural
from ragaf_exp.data.split import SPLITS

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
TEXTS = ("A brown dog on  grass.\n", "Two dogs, a café table", "people and a dog", "nothing here", "A cat?")
H, W = 40, 60
DOG = [20.0, 10.0, 40.0, 10.0, 40.0, 30.0, 20.0, 30.0]  # a polygon: columns 20 to 40, rows 10 to 30


def two_regions(sketch: np.ndarray) -> Regions:
    """The ground, and the box of the dog at 32 x 32 pixels."""
    labels = np.zeros(sketch.shape, np.int16)
    labels[9:23, 9:23] = 1
    return Regions(labels, 2, 0, np.array([-1, 0], np.int16), np.array([0, 1], np.int16))


WHOLE = Preparer(
    lambda image, drawing: np.zeros(image.shape[:2], np.float32), two_regions,
    lambda regions: Graph(np.zeros((2, 1), np.float32), np.zeros((2, 2, 1), np.float32), np.ones((2, 2), bool)),
)  # fmt: skip


def picture(box: tuple[int, int, int, int] = (20, 10, 40, 30)) -> Image.Image:
    image = Image.new("RGB", (W, H), (40, 60, 90))
    image.paste((230, 200, 60), box)
    return image


def annotation(number: int, image: int, category: int, segmentation: object, crowd: int = 0) -> dict:
    """One entry of an instances file.

    Args:
        number: Its id.
        image: The image's id.
        category: The category's id.
        segmentation: Polygons or run lengths.
        crowd: 1 for run lengths.
    """
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "area": 400.0,
            "iscrowd": crowd, "bbox": [20, 10, 20, 20]}  # fmt: skip


def _write_part(root: Path, part: str, ids: range) -> None:
    """A part in the official layout: every image shows a dog; even ones have a crowd of people too."""
    (root / part).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    images, captions, instances = [], [], []
    for i in ids:
        name = f"{i:012d}.jpg"
        picture().save(root / part / name, quality=95)
        images.append({"id": i, "file_name": name, "height": H, "width": W})
        for j, text in enumerate(TEXTS):
            captions.append({"id": 10 * i + j, "image_id": i, "caption": text})
        instances.append(annotation(i, i, 18, [DOG]))
        if i % 2 == 0:
            runs = {"size": [H, W], "counts": [0, H * 10, H * 50]}  # the first ten columns
            instances.append(annotation(1000 + i, i, 1, runs, crowd=1))
    head = {"info": {"about": 'the key "annotations": [ in a text'}, "licenses": []}
    for kind, entries in (("captions", captions), ("instances", instances)):
        content = head | {"images": images, "annotations": entries}
        content |= {"categories": CATEGORIES} if kind == "instances" else {}
        text = json.dumps(content, ensure_ascii=kind == "captions" and part == "train2017")
        (root / "annotations" / f"{kind}_{part}.json").write_text(text, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "coco"
    _write_part(folder, "train2017", range(1, 25))
    _write_part(folder, "val2017", range(101, 107))
    return folder


def item_of(source: Coco, number: int):
    return next(item for split in SPLITS for item in source.split(split) if item.key.endswith(f"{number:012d}"))


def test_val2017_is_the_test_split_and_val_a_share_of_train(root: Path):
    source = Coco(str(root), size=32, val_share=0.2)
    parts = {split: {item.key.partition("/")[0] for item in source.split(split)} for split in SPLITS}
    assert parts == {"train": {"train2017"}, "val": {"train2017"}, "test": {"val2017"}}
    assert len(source.split("train")) + len(source.split("val")) == 24 and len(source.split("test")) == 6


def test_one_part_alone_is_split_by_hash(tmp_path: Path):
    _write_part(tmp_path, "val2017", range(1, 25))
    source = Coco(str(tmp_path), size=32, val_share=0.2, test_share=0.3)
    assert all(len(source.split(split)) for split in SPLITS)


def test_things_that_the_caption_names_are_objects_with_masks(root: Path):
    item = item_of(Coco(str(root), size=80, val_share=0.2), 2)
    assert item.caption == "A brown dog on grass."
    assert [(thing.shape, item.caption[slice(*thing.span)]) for thing in item.objects] == [("dog", "dog")]
    mask = item.object_map == item.objects[0].label
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == pytest.approx((20, 60, 20, 60), abs=1)
    assert item.image[mask].mean(0) == pytest.approx((230, 200, 60), abs=12), "the mask lies on the dog"


def test_crowds_and_plurals(root: Path):
    item = item_of(Coco(str(root), size=40, val_share=0.2, fit="pad"), 2)
    texts = [caption.text for caption in item.captions]
    named = {c.text: [(o.shape, c.text[slice(*o.span)]) for o in c.objects] for c in item.captions}
    assert texts[1] == "Two dogs, a café table" and named[texts[1]] == [("dog", "dogs")]
    assert named["people and a dog"] == [("person", "people"), ("dog", "dog")] and named["A cat?"] == []
    crowd = item.object_map == next(o.label for o in item.captions[2].objects if o.shape == "person")
    rows, columns = np.nonzero(crowd)
    assert columns.max() < 8 and rows.min() >= 6 and rows.max() < 34, "the crowd's strip, inside the padded picture"


def test_training_samples_a_caption_at_each_step(root: Path):
    source = Coco(str(root), size=32, val_share=0.2)
    examples = Recaptioned(Examples(source.split("train"), WHOLE), seed=3)
    captions = [examples.at(step, 0).item.caption for step in range(40)]
    assert len(set(captions)) == 5 and examples[0].item.caption == "A brown dog on grass."
    again = Recaptioned(Examples(source.split("train"), WHOLE), seed=3)
    assert captions == [again.at(step, 0).item.caption for step in range(40)], "a function of (seed, step, item)"
    shown = next(e for step in range(40) if (e := examples.at(step, 0)).item.caption.startswith("Two"))
    assert [shown.item.caption[slice(*thing.span)] for thing in shown.item.objects] == ["dogs"]
    assert region_spans(shown).tolist() == [[0, 0], list(shown.item.objects[0].span)]


def test_all_and_first_captions(root: Path):
    every = Coco(str(root), size=32, val_share=0.2, captions="all")
    first = Coco(str(root), size=32, val_share=0.2, captions="first")
    assert len(every.split("train")) == 5 * len(first.split("train")) and len(every.split("test")) == 6
    keys = [every.split("train")[i].key for i in range(5)]
    assert len(set(keys)) == 5 and not first.split("train")[0].captions and not every.split("train")[1].captions


def test_without_objects(root: Path):
    item = Coco(str(root), size=32, objects=False).split("train")[0]
    assert item.objects == () and item.object_map is None and len(item.captions) == 5


def test_stuff_maps(root: Path):
    folder = root / "stuffthingmaps" / "train2017"
    folder.mkdir(parents=True)
    stuff = np.full((H, W), 255, np.uint8)
    stuff[20:] = 123  # grass, 124, below row 20; the dog lies over it
    Image.fromarray(stuff).save(folder / f"{2:012d}.png")
    item = item_of(Coco(str(root), size=80, val_share=0.2), 2)
    labels = {thing.shape: thing.label for thing in item.objects}
    assert set(labels) == {"dog", "grass"}
    values = item.object_map[70, 5], item.object_map[50, 40], item.object_map[10, 5]
    assert values == (labels["grass"], labels["dog"], 0)


def test_panoptic_segments(root: Path):
    folder = root / "annotations" / "panoptic_train2017"
    folder.mkdir()
    ids = np.full((H, W), 70000)
    ids[10:30, 20:40] = 300
    channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
    Image.fromarray(channels.astype(np.uint8)).save(folder / f"{3:012d}.png")
    segments = [{"id": 70000, "category_id": 193, "area": 1}, {"id": 300, "category_id": 18, "area": 1}]
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": H, "width": W} for i in range(1, 25)],
        "annotations": [{"image_id": 3, "file_name": f"{3:012d}.png", "segments_info": segments}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 193, "name": "grass-merged"}],
    }
    (root / "annotations" / "panoptic_train2017.json").write_text(json.dumps(content))
    item = item_of(Coco(str(root), size=80, val_share=0.2), 3)
    labels = {thing.shape: thing.label for thing in item.objects}
    assert set(labels) == {"dog", "grass"}
    assert item.object_map[40, 40] == labels["dog"] and item.object_map[2, 2] == labels["grass"]


def grey(path: Path) -> None:
    picture().convert("L").save(path)


def cmyk(path: Path) -> None:
    picture().convert("CMYK").save(path)


@pytest.mark.parametrize("save", [grey, cmyk])
def test_channels(root: Path, save: Callable[[Path], None]):
    save(root / "train2017" / f"{5:012d}.jpg")
    item = item_of(Coco(str(root), size=32, val_share=0.2), 5)
    assert item.image.shape == (32, 32, 3) and item.image.dtype == np.uint8 and item.image[16, 16].min() > 50


@pytest.mark.parametrize("turn", range(2, 9))
def test_masks_turn_with_images_that_exif_turns(root: Path, turn: int):
    box, path = (10, 5, 30, 15), root / "train2017" / f"{7:012d}.jpg"
    exif = Image.Exif()
    exif[0x0112] = turn
    picture(box).save(path, exif=exif, quality=95)
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    polygon = [10.0, 5.0, 30.0, 5.0, 30.0, 15.0, 10.0, 15.0]
    next(a for a in content["annotations"] if a["image_id"] == 7)["segmentation"] = [polygon]
    file.write_text(json.dumps(content))
    for fit in ("crop", "pad"):
        item = item_of(Coco(str(root), size=60, val_share=0.2, fit=fit), 7)
        bright = item.image[..., 0] > 135
        mask = item.object_map > 0
        assert (mask & bright).sum() / (mask | bright).sum() > 0.85, fit


def test_missing_and_damaged_images(root: Path):
    (root / "train2017" / f"{9:012d}.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 30 items can't be used: .*000000000009.jpg: no such file.*on_error=skip"):
        Coco(str(root))
    assert Coco(str(root), size=32, on_error="skip").skipped == 1
    (root / "val2017" / f"{101:012d}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    assert Coco(str(root), size=32, on_error="skip", check=True).skipped == 2


@pytest.mark.parametrize("changes, says", [
    ({"captions": "some"}, "sampled, all, first"), ({"year": 2014}, "neither train2014 nor val2014"),
    ({"root": ""}, "data.root"),
])  # fmt: skip
def test_refusals(root: Path, changes: dict, says: str):
    """Mistakes in values give one line.

    Args:
        root: A valid folder.
        changes: Values that differ from the defaults.
        says: Part of the message.
    """
    with pytest.raises(UserError, match=says):
        Coco(**{"root": str(root)} | changes)


def test_damaged_annotations_are_named(root: Path):
    path = root / "annotations" / "captions_val2017.json"
    path.write_text(path.read_text()[:-300])
    with pytest.raises(UserError, match=r"captions_val2017.json: is damaged or cut short"):
        Coco(str(root))
    path.unlink()
    with pytest.raises(UserError, match=r"captions_val2017.json: no such file"):
        Coco(str(root))


@pytest.mark.parametrize("chunk", [64, 1000, 1 << 22])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_array_items_reads_what_json_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, ascii_only: bool):
    """Chunks of any size give the same objects.

    Args:
        tmp_path: A folder.
        monkeypatch: Changes the size of chunks.
        chunk: Bytes of a chunk.
        ascii_only: Whether other characters are written as escapes.
    """
    monkeypatch.setattr(json_array, "CHUNK", chunk)
    entries = [{"text": f"é{'x' * (17 * i % 300)} ]}}", "list": [{"a": [1, 2.5]}] * (i % 5)} for i in range(60)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"other": [1], "annotations": entries}, ensure_ascii=ascii_only, indent=2), encoding="utf-8")
    read = list(array_items(path, "annotations"))
    assert [as_utf8(value["text"]) for _, _, value in read] == [entry["text"] for entry in entries]
    content = path.read_bytes()
    assert [json.loads(content[at : at + length]) for at, length, _ in read] == entries
    assert list(array_items(path, "absent")) == list(array_values(path, "absent")) == []
    assert [value for values in array_values(path, "annotations") for value in values] == [value for _, _, value in read]
    path.write_bytes(content[: content.rindex(b"}") - 40])
    for reader in (array_items, array_values):
        with pytest.raises(UserError, match="is damaged or cut short"):
            list(reader(path, "annotations"))


def test_the_index_of_a_large_file_is_stored(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAGAF_CACHE", str(root / "cache"))
    monkeypatch.setattr(annotation_index, "LARGE", 100)
    path = root / "annotations" / "instances_train2017.json"
    first = AnnotationIndex(path)
    assert len(list((root / "cache").rglob("*.npz"))) == 1
    for reader in ("array_items", "array_values"):  # the second time, the file is not parsed
        monkeypatch.setattr(annotation_index, reader, None)
    second = pickle.loads(pickle.dumps(AnnotationIndex(path)))  # noqa: S301 - our own
    for image in (1, 2, 24, 99):
        assert list(first.of(image)) == list(second.of(image))
        assert first.categories(image).tolist() == [a["category_id"] for a in second.of(image)]
    assert [a["category_id"] for a in second.of(2, {1})] == [1]


def test_words_of_categories():
    assert [plural(word) for word in ("dog", "person", "bus", "knife", "wine glass", "sandwich", "puppy", "toy")] == [
        "dogs", "people", "buses", "knives", "wine glasses", "sandwiches", "puppies", "toys"]  # fmt: skip
    known = frozenset(("person", "dog", "hot dog", "bear", "teddy bear", "bicycle", "motorcycle"))
    text = "Policemen near a HOT  dog and a bear"
    assert {k: text[slice(*v)] for k, v in mentions(text, known, known).items()} == {"hot dog": "HOT  dog", "bear": "bear"}
    assert mentions("a teddy bear", {"bear"}, known) == {}, "the longer phrase hides the shorter"
    assert mentions("a bike", {"bicycle"}, known) == {"bicycle": (2, 6)}
    assert mentions("a bike", {"bicycle", "motorcycle"}, known) == {}, "it may be either"


def test_polygons_agree_with_pycocotools():
    from pycocotools import mask

    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        points = np.stack([60 + 45 * np.cos(angles), 50 + 40 * np.sin(angles)], 1) + rng.uniform(-4, 4, (12, 2))
        polygon = [points.ravel().tolist()]
        true = mask.decode(mask.merge(mask.frPyObjects(polygon, 100, 120)))
        frame = window(100, 120, (120, 120), "pad")
        drawn = draw_annotations([(1, {"segmentation": polygon})], frame)[10:110]
        assert (drawn >= true).mean() > 0.995, "pixels that the outline touches are part of the mask"
        assert (true & drawn).sum() / (true | drawn).sum() > 0.95


def test_overlapping_polygons_are_drawn_one_by_one_and_damaged_ones_refused():
    frame = window(40, 40, (40, 40), "crop")
    left, right = [0, 0, 24, 0, 24, 39, 0, 39], [15, 0, 39, 0, 39, 39, 15, 39]
    things = [(1, {"segmentation": [left, right], "area": 2}), (2, {"segmentation": [[10, 10, 20, 10, 20, 20]], "area": 1})]
    drawn = draw_annotations(things, frame)
    assert drawn.min() == 1 and drawn[12, 18] == 2 and drawn[30, 18] == 1, "no hole where they overlap, small ones on top"
    with pytest.raises(UserError, match="a polygon lacks a coordinate"):
        draw_annotations([(1, {"segmentation": [left[:-1], right[:-1]]})], frame)


def test_run_lengths_of_both_kinds():
    from pycocotools import mask

    true = np.zeros((9, 7), np.uint8)
    true[2:5, 1:6] = 1
    packed = mask.encode(np.asfortranarray(true))
    flat = true.T.ravel()
    counts = [len(run) for run in np.split(flat, np.flatnonzero(np.diff(flat)) + 1)]
    for segmentation in (packed, {"size": [9, 7], "counts": counts}):
        assert np.array_equal(decode_rle(segmentation), true)


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_label_maps_fall_on_the_pixels_of_the_image(fit: str):
    from ragaf_exp.data.fit import fit_image

    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 2, (4, 6)), np.ones((10, 10), int)).astype(np.uint8)
    image = fit_image(np.repeat(labels[..., None] * 255, 3, 2), 64, fit)
    sampled = warp_nearest(labels, window(40, 60, (64, 64), fit))
    certain = (image[..., 0] < 60) | (image[..., 0] > 195)
    inside = np.ones_like(certain) if fit == "crop" else np.pad(np.ones((43, 64), bool), ((10, 11), (0, 0)))
    wrong = (sampled > 0) != (image[..., 0] > 127)
    assert (wrong & certain & inside).mean() < 0.02


@pytest.mark.parametrize("side", [8, 20, 40, 200])
def test_fast_jpeg_decoding_equals_pillows(tmp_path: Path, side: int):
    rng = np.random.default_rng(2)
    for mode in ("RGB", "L"):
        noise = np.kron(rng.integers(0, 256, (8, 11, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        path = tmp_path / f"{mode}.jpg"
        Image.fromarray(noise).convert(mode).save(path, quality=90)
        with Image.open(path) as picture:
            scale = side / min(picture.size)
            picture.draft(None, (int(picture.width * scale), int(picture.height * scale)))
            expected = np.asarray(picture.convert("RGB"))
        assert np.array_equal(decode(path, side=side)[0], expected)


def test_a_cut_jpeg_is_refused_at_any_scale(tmp_path: Path):
    path = tmp_path / "cut.jpg"
    picture().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    for side in (0, 8, 40):
        with pytest.raises(UserError, match="damaged or cut short"):
            decode(path, side=side)


def test_real_coco(shared_data: Path):
    if not (shared_data / "coco_mini").is_dir():
        pytest.skip("no real COCO sample: data/coco_mini is absent")
    source = Coco(str(shared_data / "coco_mini"), size=128, val_share=0.2, test_share=0.2)
    assert sum(len(source.split(split)) for split in SPLITS) == 79
    share, _, rest = source.coverage(1000).partition("%")
    assert int(share) > 85 and "395 captions" in rest
    named = [item for item in source.split("train") if item.objects]
    assert len(named) > 30
    for item in named:
        for thing in item.objects:
            assert (item.object_map == thing.label).mean() >= 0.001 and item.caption[slice(*thing.span)]
