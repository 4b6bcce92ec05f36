"""SketchyCOCO and FS-COCO in their official layouts, made by the tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ragaf_exp.audit import main as audit
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.fscoco import FsCoco, draw_npy
from ragaf_exp.data.sources.sketchycoco import SketchyCoco
from ragaf_exp.data.split import SPLITS

H, W = 60, 80
BOX = (20, 10, 60, 50)


def photo(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    image = Image.fromarray(np.kron(rng.integers(0, 256, (6, 8, 3)), np.ones((10, 10, 1))).astype(np.uint8))
    image.save(path, quality=95)


def sketch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (W, H), "white")
    ImageDraw.Draw(image).rectangle(BOX, outline="black", width=2)
    image.save(path)


def _captions(folder: Path, part: str, ids: list[int]) -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids],
        "annotations": [{"image_id": i, "id": i, "caption": f"a horse in field {i}"} for i in ids],
    }
    (folder / "annotations" / f"captions_{part}2017.json").write_text(json.dumps(content))


@pytest.fixture(params=["Sketch", "Sketch/paper_version"])
def sketchy_coco(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root, number = tmp_path / "sketchycoco", 0
    for part, count in (("trainInTrain", 6), ("valInTrain", 3), ("val", 4)):
        for _ in range(count):
            number += 1
            photo(root / "Scene" / "GT" / part / f"{number:012d}.png", number)
            sketch(root / "Scene" / request.param / part / f"{number:012d}.png")
    for part in ("train", "val"):
        for name in ("19", "124"):
            for i in range(8):
                photo(root / "Object" / "GT" / part / name / f"{i}.png", 50 + i + 20 * int(name) + 10 * (part == "val"))
                sketch(root / "Object" / "Sketch" / part / name / f"{i}.png")
    _captions(tmp_path / "coco", "train", list(range(1, 10)))
    _captions(tmp_path / "coco", "val", list(range(10, 14)))
    return root


def test_scenes_have_their_splits_and_cocos_captions(sketchy_coco: Path):
    source = SketchyCoco(str(sketchy_coco), size=40, coco=str(sketchy_coco.parent / "coco"))
    assert [len(source.split(split)) for split in SPLITS] == [6, 3, 4]
    item = source.split("test")[0]
    assert item.key == "val/000000000010" and item.caption == "a horse in field 10"
    assert item.drawing[:, 6:9].sum() > 5 and item.drawing[20, 20] == 0
    assert SketchyCoco(str(sketchy_coco), size=40).split("train")[0].caption == ""


def test_objects_are_named_by_their_class(sketchy_coco: Path):
    source = SketchyCoco(str(sketchy_coco), size=40, kind="object", val_share=0.3)
    texts = {item.caption for split in SPLITS for item in source.split(split)}
    assert texts == {"a photo of a horse", "a photo of grass"} or texts == {"a photo of a horse", "a photo of a grass"}
    assert len(source.split("test")) == 16 and len(source.split("train")) + len(source.split("val")) == 16


def test_leaked_scenes(sketchy_coco: Path, cli):
    assert len(SketchyCoco(str(sketchy_coco), size=40, drop=["leaked"], val_share=0.4).records) == 13
    out = sketchy_coco.parent / "page.html"
    arguments = ("data=sketchycoco", f"data.root={sketchy_coco}", "data.size=40", f"out={out}")
    status, printed, _ = cli(audit, *arguments, f"data.coco={sketchy_coco.parent / 'coco'}")
    assert status == 0 and "warning        3  leaked images" in printed and "flag: leaked" in printed


def test_refusals_of_sketchycoco(sketchy_coco: Path):
    (sketchy_coco / "Scene" / "GT" / "val" / "000000000011.png").unlink()
    with pytest.raises(UserError, match=r"1 of 13 items can't be used: val/000000000011: it has no image"):
        SketchyCoco(str(sketchy_coco))
    mistakes = (({"kind": "x"}, "scene or object"), ({"drop": ["x"]}, "leaked"), ({"coco": "nowhere"}, "data.coco"))
    for changes, says in mistakes:
        with pytest.raises(UserError, match=says):
            SketchyCoco(str(sketchy_coco), **changes)
    (sketchy_coco / "Object" / "GT" / "val" / "horses").mkdir()
    photo(sketchy_coco / "Object" / "GT" / "val" / "horses" / "1.png", 1)
    with pytest.raises(UserError, match="horses: is not named by a COCO class"):
        SketchyCoco(str(sketchy_coco), kind="object")


@pytest.fixture
def fs_coco(tmp_path: Path) -> Path:
    root, ids = tmp_path / "fscoco", []
    corners = [(BOX[0], BOX[1]), (BOX[2], BOX[1]), (BOX[2], BOX[3]), (BOX[0], BOX[3]), (BOX[0], BOX[1])]
    for user in range(1, 7):
        for i in range(6):
            stem = f"{100 * user + i:012d}"
            ids.append(stem)
            photo(root / "images" / str(user) / f"{stem}.jpg", 100 * user + i)
            sketch(root / "raster_sketches" / str(user) / f"{stem}.jpg")
            for folder in ("vector_sketches", "text"):
                (root / folder / str(user)).mkdir(parents=True, exist_ok=True)
            rows = [[x, y, n in (2, 4)] for n, (x, y) in enumerate(corners)]
            rows.insert(3, [BOX[2], BOX[3], 0])  # the second stroke begins where the first ends
            np.save(root / "vector_sketches" / str(user) / f"{stem}.npy", np.array(rows, float))
            (root / "text" / str(user) / f"{stem}.txt").write_text(f"a box by user {user}\n")
    (root / "val_normal.txt").write_text("\n".join(ids[::6]))
    (root / "val_unseen_user.txt").write_text("\n".join(ids[-12:-3]))
    return root


def test_the_official_splits(fs_coco: Path):
    normal = FsCoco(str(fs_coco), size=40)
    assert {item.key.rpartition("/")[2] for item in normal.split("test")} == {f"{100 * user:012d}" for user in range(1, 7)}
    unseen = FsCoco(str(fs_coco), size=40, split="unseen_user", val_share=0.3)
    people = [{item.key.partition("/")[0] for item in unseen.split(split)} for split in SPLITS]
    assert people[2] == {"5", "6"} and not people[0] & people[1] and people[0] | people[1] == {"1", "2", "3", "4"}
    assert len(unseen.split("test")) == 9, "a test person's other sketches are left out"


def test_rasters_and_vectors_agree(fs_coco: Path):
    raster, vector = (FsCoco(str(fs_coco), size=120, vector=v, fit=f).split("train")[3] for v in (0, 1) for f in ["pad"])
    assert raster.caption == vector.caption == "a box by user 1" and raster.key == vector.key
    inked = [np.argwhere(item.drawing > 0.4) for item in (raster, vector)]
    assert np.abs(inked[0].min(0) - inked[1].min(0)).max() <= 3 and np.abs(inked[0].max(0) - inked[1].max(0)).max() <= 3
    assert vector.drawing[60, 60] == 0


@pytest.mark.parametrize("content", [np.zeros((0, 3)), np.zeros(5), np.full((4, 3), np.nan), np.array([{}], object)])
def test_damaged_vectors(tmp_path: Path, content: np.ndarray):
    np.save(tmp_path / "1.npy", content, allow_pickle=True)
    with pytest.raises(UserError, match="is no vector sketch"):
        draw_npy(tmp_path / "1.npy", 60, 80)


def test_a_sketch_beyond_its_canvas_is_scaled(tmp_path: Path):
    np.save(tmp_path / "1.npy", np.array([[0, 0, 0], [800, 600, 1]], float))
    drawing = draw_npy(tmp_path / "1.npy", 60, 80)
    assert drawing.shape == (384, 512) and drawing[380, 506] > 0.5


def test_audit_of_ids(fs_coco: Path, cli):
    _captions(fs_coco.parent / "coco", "train", [101, 102, 999999])
    photo(fs_coco / "images" / "6" / f"{100:012d}.jpg", 100)
    sketch(fs_coco / "raster_sketches" / "6" / f"{100:012d}.jpg")
    (fs_coco / "text" / "6" / f"{100:012d}.txt").write_text("the same photo, drawn by another person")
    arguments = ("data=fscoco", f"data.root={fs_coco}", f"data.coco={fs_coco.parent / 'coco'}", "data.size=40")
    (fs_coco / "val_unseen_user.txt").write_text(f"{601:012d}\n{100:012d}")
    (fs_coco / "text" / "3" / f"{301:012d}.txt").unlink()
    status, printed, _ = cli(audit, *arguments, f"out={fs_coco.parent / 'page.html'}")
    assert status == 1 and "photos in COCO train2017" in printed and "3/000000000301" in printed


def test_refusals_of_fscoco(fs_coco: Path, tmp_path: Path):
    with pytest.raises(UserError, match="normal or unseen_user"):
        FsCoco(str(fs_coco), split="other")
    with pytest.raises(UserError, match="no folder images"):
        FsCoco(str(tmp_path))
