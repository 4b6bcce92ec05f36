"""Sketchy in its official layout: pairs, splits by photo, flags, difficulty, captions, and refusals."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from eval.items import row_of
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Example, Graph, Regions
from ragaf_exp.data.sources.sketchy import Sketchy, class_name
from ragaf_exp.data.split import SPLITS

TX = "tx_000000000000"
CLASSES = ("hot-air_balloon", "jack-o-lantern", "car_(sedan)", "scissors")


def _write_pair(root: Path, name: str, stem: str, sketches: int = 3, side: int = 32) -> None:
    """A photo with a bright square, and sketches of its outline."""
    for part in ("photo", "sketch"):
        (root / part / TX / name).mkdir(parents=True, exist_ok=True)
    photo = Image.new("RGB", (side, side), (30, 90, 30))
    ImageDraw.Draw(photo).rectangle((8, 8, 24, 24), fill=(240, 200, 30))
    photo.save(root / "photo" / TX / name / f"{stem}.jpg")
    for number in range(1, sketches + 1):
        sketch = Image.new("RGB", (side, side), "white")
        ImageDraw.Draw(sketch).rectangle((8, 8, 24, 24), outline="black")
        sketch.save(root / "sketch" / TX / name / f"{stem}-{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "256x256"
    for name in CLASSES:
        for number in range(10):
            _write_pair(folder, name, f"n0{CLASSES.index(name)}_{number}")
    (folder / "photo" / TX / ".ipynb_checkpoints").mkdir()
    (folder / "sketch" / TX / "scissors" / "._n03_1-1.png").write_bytes(b"macOS")
    return folder


def write_info(folder: Path) -> None:
    folder.mkdir()
    (folder / "invalid-error.txt").write_text("n00_0-1\n")
    (folder / "invalid-ambiguous.txt").write_text("hot-air_balloon/n00_0-2.png\n")
    for name in ("context", "pose"):
        (folder / f"invalid-{name}.txt").write_text("")
    header = "CategoryID,Category,ImageNetID,SketchID,Difficulty,Stroke_Count,Error?,Context?,Ambiguous?,WrongPose?\n"
    rows = [f"1,hot-air balloon,n00_0,{i},{i},20,{int(i == 1)},0,0,{int(i == 3)}\n" for i in (1, 2, 3)]
    (folder / "stats.csv").write_text(header + "".join(rows))
    (folder / "testset.txt").write_text("".join(f"{name}/n0{i}_4.jpg\n" for i, name in enumerate(CLASSES)))


def everything(source: Sketchy) -> list:
    return [item for split in SPLITS for item in source.split(split)]


def test_every_sketch_is_an_item_with_its_photo(root: Path):
    items = everything(Sketchy(str(root), size=32))
    assert len(items) == 4 * 10 * 3 and len({item.key for item in items}) == len(items)
    for item in items[::17]:
        assert item.image.shape == (32, 32, 3) and item.drawing.shape == (32, 32)
        assert item.drawing[8, 8:24].min() > 0.8 and item.drawing[16, 16] == 0
        assert item.image[16, 16, 0] > 200 > 100 > item.image[2, 2, 0]


def test_all_sketches_of_a_photo_share_its_split(root: Path):
    source = Sketchy(str(root), size=32, val_share=0.3, test_share=0.3)
    photos = [{item.key.rpartition("-")[0] for item in source.split(split)} for split in SPLITS]
    assert all(photos) and not (photos[0] & photos[1] or photos[1] & photos[2] or photos[0] & photos[2])


def test_captions_are_words():
    assert class_name("hot-air_balloon") == "hot-air balloon" and class_name("car_(sedan)") == "sedan car"
    assert class_name("jack-o-lantern") == "jack-o-lantern" and class_name("ray") == "ray"


def test_captions_of_items(root: Path):
    texts = {item.caption for item in everything(Sketchy(str(root), size=32))}
    assert texts == {"a photo of a hot-air balloon", "a photo of a jack-o-lantern", "a photo of a sedan car",
                     "a photo of scissors"}  # fmt: skip
    assert Sketchy(str(root), size=32, caption="{}, drawn").split("train").captions(1) == ["a sedan car, drawn"]


@pytest.mark.parametrize("where", ["inside", "next"])
def test_flags_and_difficulty(root: Path, where: str):
    write_info(root / "info" if where == "inside" else root.parent / "info")
    items = {item.key: item for item in everything(Sketchy(str(root), size=32))}
    assert "hot-air_balloon/n00_0-1" not in items and len(items) == 119
    assert [items[f"hot-air_balloon/n00_0-{i}"].difficulty for i in (2, 3)] == [2, 3]
    assert len(everything(Sketchy(str(root), size=32, drop=[]))) == 120
    assert len(everything(Sketchy(str(root), size=32, drop=["error", "ambiguous", "pose"]))) == 117
    flags = {record.key: record.flags for record in Sketchy(str(root), size=32).records}
    assert flags["hot-air_balloon/n00_0-1"] == ("error",) and flags["hot-air_balloon/n00_0-3"] == ("pose",)


def test_difficulty_reaches_the_groups_of_the_report(root: Path):
    write_info(root / "info")
    item = next(item for item in everything(Sketchy(str(root), size=32)) if item.difficulty == 3)
    empty = np.zeros((0,), np.int16)
    graph = Graph(np.zeros((0, 1), np.float32), np.zeros((0, 0, 1), np.float32), np.zeros((0, 0), bool))
    regions = Regions(np.full((32, 32), -1, np.int16), 0, -1, empty, empty)
    assert row_of(Example(item, item.drawing, regions, graph)).difficulty == 3


def test_official_test_set(root: Path):
    with pytest.raises(UserError, match="testset.txt"):
        Sketchy(str(root), testset=True)
    write_info(root / "info")
    source = Sketchy(str(root), size=32, testset=True)
    test = {item.key.partition("/")[2].rpartition("-")[0] for item in source.split("test")}
    assert test == {"n00_4", "n01_4", "n02_4", "n03_4"}
    assert not test & {item.key.partition("/")[2].rpartition("-")[0] for item in source.split("train")}


def test_extended_photos_are_unpaired(root: Path):
    folder = root / "EXTEND_image_sketchy" / "scissors"
    folder.mkdir(parents=True)
    for stem in ("n03_1", "ext_7"):  # the first is a photo that has sketches
        Image.new("RGB", (40, 32), "red").save(folder / f"{stem}.jpg")
    source = Sketchy(str(root), size=32, extended="EXTEND_image_sketchy")
    extra = [item for item in everything(source) if item.drawing is None]
    assert [item.key for item in extra] == ["scissors/ext_7"] and extra[0].caption == "a photo of scissors"


@pytest.mark.parametrize("key", ["photos", "sketches"])
def test_other_folders_are_refused_with_the_aligned_ones(root: Path, key: str):
    with pytest.raises(UserError, match=f"aligned are photo/{TX} and sketch/{TX}") as refusal:
        Sketchy(str(root), **{key: "tx_000100000000"})
    assert "\n" not in str(refusal.value)


def test_missing_partners_are_named_or_skipped(root: Path):
    (root / "photo" / TX / "scissors" / "n03_2.jpg").unlink()
    for number in (1, 2, 3):
        (root / "sketch" / TX / "scissors" / f"n03_5-{number}.png").unlink()
    with pytest.raises(UserError, match=r"4 of 118 items can't be used: scissors/n03_2-1: it has no photo"):
        Sketchy(str(root))
    source = Sketchy(str(root), size=32, on_error="skip")
    assert source.skipped == 4 and len(everything(source)) == 114


def test_damaged_file_is_named_at_the_start_only_if_checked(root: Path):
    path = root / "photo" / TX / "scissors" / "n03_2.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"n03_2.jpg: is damaged"):
        everything(Sketchy(str(root), size=32))
    assert Sketchy(str(root), size=32, check=True, on_error="skip").skipped == 3


@pytest.mark.parametrize("changes, says", [
    ({"root": ""}, "data.root: no folder"), ({"drop": ["eror"]}, "eror is no flag"),
    ({"on_error": "ignore"}, "raise or skip"), ({"extended": "nowhere"}, "no such folder"),
])  # fmt: skip
def test_refusals(root: Path, changes: dict, says: str):
    """Mistakes in values give one line.

    Args:
        root: A valid folder.
        changes: Values that differ from the defaults.
        says: Part of the message.
    """
    with pytest.raises(UserError, match=says):
        Sketchy(**{"root": str(root)} | changes)


def test_a_wrong_root_names_the_layout(tmp_path: Path):
    with pytest.raises(UserError, match="holds photo/ and sketch/"):
        Sketchy(str(tmp_path))


def test_built_from_the_command_lines_config_and_picklable(root: Path):
    cfg = compose_config(["data=sketchy", f"data.root={root}", "data.size=32", "data.drop=[error,pose]"])
    source = build(cfg.data, "data")
    copy = pickle.loads(pickle.dumps(source.split("train")))  # noqa: S301 - our own
    assert copy.captions(3) == source.split("train").captions(3)
    assert np.array_equal(copy[0].image, source.split("train")[0].image)
    assert source.manifest().digest() == build(cfg.data, "data").manifest().digest()


def test_real_sketches(shared_data: Path):
    if not (shared_data / "sketchy").is_dir():
        pytest.skip("no real Sketchy sample: data/sketchy is absent")
    source = Sketchy(str(shared_data / "sketchy"), size=64)
    lengths = [len(source.split(split)) for split in SPLITS]
    assert sum(lengths) == 360 and min(lengths) > 10
    assert {item.caption for item in (source.split("train")[i] for i in range(0, 250, 25))} <= {
        "a photo of a dog", "a photo of a guitar", "a photo of a horse"}  # fmt: skip
    shares = [float((source.split("train")[i].drawing > 0.5).mean()) for i in range(0, 250, 25)]
    assert all(0.005 < share < 0.3 for share in shares), shares
