"""One's own folder: metadata, paired drawings, stable splits, and every way it can be wrong."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.types import Item
from ragaf_exp.data.sources.folder import Folder
from ragaf_exp.data.split import SPLITS, hash_share, split_of


def write_image(path: Path, seed: int = 0, shape: tuple[int, int] = (48, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)


def write_rows(root: Path, rows: list[dict]) -> None:
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty images, some in a subfolder, one with two captions and one with an empty one."""
    folder = tmp_path / "photos"
    names = [f"{'sub/' if i % 3 == 0 else ''}{i}.png" for i in range(20)]
    for i, name in enumerate(names):
        write_image(folder / name, i)
    rows = [{"file_name": name, "text": f"caption {i}"} for i, name in enumerate(names)]
    write_rows(folder, [*rows, {"file_name": names[3], "text": "again"}, {"file_name": names[4], "text": ""}])
    return folder


def everything(folder: Folder) -> list[Item]:
    return [item for name in SPLITS for item in folder.split(name)]


def test_every_row_is_in_one_split(root: Path) -> None:
    folder = Folder(str(root), size=32, val_share=0.25, test_share=0.25)
    items = everything(folder)
    assert folder.skipped == 0 and len(items) == len({item.key for item in items}) == 22
    assert {"caption 7", "again", ""} <= {item.caption for item in items}
    for item in items:
        assert item.image.shape == (32, 32, 3) and item.drawing is None and item.objects == ()
    files = [{item.key.partition("#")[0] for item in folder.split(name)} for name in SPLITS]
    assert not (files[0] & files[1] or files[0] & files[2] or files[1] & files[2])


def test_splits_depend_on_the_file_name_alone(root: Path) -> None:
    before = {item.key.partition("#")[0]: split for split in SPLITS for item in Folder(str(root)).split(split)}
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    write_rows(root, rows[::-2])
    for split in SPLITS:
        for item in Folder(str(root), size=32).split(split):
            assert before[item.key.partition("#")[0]] == split


def test_the_hash_never_changes() -> None:
    assert hash_share("1F34E") == pytest.approx(0.8969409, abs=1e-6)


@given(st.text(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_train_share_only_takes_over(name: str, val: float, test: float) -> None:
    assert 0 <= hash_share(name) < 1
    if split_of(name, val, test) == "train":
        assert split_of(name, val / 2, test / 2) == "train"


def test_csv_and_another_column(root: Path) -> None:
    (root / "metadata.jsonl").unlink()
    (root / "metadata.csv").write_text('\ufefffile_name,prompt\nsub/0.png,"one, two"\n1.png,\n', encoding="utf-8")
    assert {item.caption for item in everything(Folder(str(root), text_column="prompt"))} == {"one, two", ""}


def test_paired_drawings_line_up(root: Path) -> None:
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        picture = np.full((96, 128), 255, np.uint8)
        picture[40 + i, 20:100] = 0
        target = (root.parent / "lines" / path.relative_to(root)).with_suffix(".JPG" if i % 2 else ".webp")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target, **({} if i % 2 else {"lossless": True}))
    for drawings in (str(root.parent / "lines"), "../lines"):
        for item in everything(Folder(str(root), drawings=drawings, fit="pad")):
            assert item.drawing.shape == (64, 64) and item.drawing.dtype == np.float32
            assert 0.005 < item.drawing.mean() < 0.05
    shutil.rmtree(root.parent / "lines" / "sub")
    with pytest.raises(UserError, match="8 of 22 rows can't be used.*no drawing of that name for sub"):
        Folder(str(root), drawings="../lines")
    Image.new("L", (200, 20), 255).save(root.parent / "lines" / "1.webp")
    (root.parent / "lines" / "1.JPG").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"aspect differs from that of 1\.png"):
        Folder(str(root), drawings="../lines")


def test_missing_drawings_folder_is_named(root: Path) -> None:
    with pytest.raises(UserError, match="data.drawings=lines: no such folder"):
        Folder(str(root), drawings="lines")


def test_bad_rows_are_listed_or_skipped(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "1.png").unlink()
    (root / "2.png").write_bytes((root / "2.png").read_bytes()[:900])
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    write_rows(root, [*rows, {"text": "no file"}, {"file_name": "4.png"}, {"file_name": "4.png", "text": 5}])
    with pytest.raises(UserError) as caught:
        Folder(str(root))
    message = str(caught.value)
    assert "\n" not in message and "5 of 25 rows can't be used" in message and "and 2 more" in message
    assert "row 2: " in message and "1.png: no such file" in message and "data.on_error=skip" in message
    with caplog.at_level(logging.WARNING):
        folder = Folder(str(root), on_error="skip")
    assert folder.skipped == 5 and len(everything(folder)) == 20
    assert len(caplog.records) == 1 and "5 of 25 rows" in caplog.text


def test_headers_alone_miss_a_cut_file_but_name_it_later(root: Path) -> None:
    (root / "2.png").write_bytes((root / "2.png").read_bytes()[:900])
    folder = Folder(str(root), check=False)
    with pytest.raises(UserError, match="2.png: is damaged"):
        everything(folder)
    (root / "2.png").write_bytes(b"text")
    with pytest.raises(UserError, match="2.png: is not an image"):
        Folder(str(root), check=False)


def test_no_row_left_is_an_error_even_when_skipping(root: Path) -> None:
    write_rows(root, [{"file_name": "gone.png", "text": ""}])
    with pytest.raises(UserError, match="no row is left"):
        Folder(str(root), on_error="skip")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no rows"),
        ("\n\n", "holds no rows"),
        ('{"file_name": "1.png", "caption": ""}\n', r"no column text \(it has: file_name, caption\)"),
        ('{"text": "a"}\n', r"no column file_name \(it has: text\)"),
        ('{"file_name": "1.png", "text": ""}\n{"file_name": \n', "line 2 is not JSON"),
        ("[1]\n", "line 1 is not a JSON object"),
        ('{"file_name": "../photos/1.png/../../secret.png", "text": ""}\n', "leads out of the folder"),
        ('{"file_name": "/etc/passwd", "text": ""}\n', "leads out of the folder"),
        ('{"file_name": "1\\u0000.png", "text": ""}\n', "leads out of the folder"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_bad_metadata_is_named(root: Path, text: str, what: str, on_error: str) -> None:
    (root / "metadata.jsonl").write_text(text)
    with pytest.raises(UserError, match=what) as caught:
        Folder(str(root), on_error=on_error)
    assert str(caught.value).startswith(str(root / "metadata.jsonl")) and "\n" not in str(caught.value)


def test_bad_encoding_and_bad_csv_are_named(root: Path) -> None:
    (root / "metadata.jsonl").write_bytes(b'{"file_name": "1.png", "text": "\xff\xfe"}')
    with pytest.raises(UserError, match="is not UTF-8"):
        Folder(str(root))
    (root / "metadata.jsonl").unlink()
    (root / "metadata.csv").write_text('file_name,text\n1.png,"open')
    with pytest.raises(UserError, match="is not a table of comma-separated values"):
        Folder(str(root))
    (root / "metadata.csv").write_text("")
    with pytest.raises(UserError, match="holds no rows"):
        Folder(str(root))


def test_bad_roots_are_named(root: Path, tmp_path: Path) -> None:
    for given_root, what in (
        ("", "data.root: no folder is given"),
        (str(tmp_path / "none"), "no such folder"),
        (str(root / "1.png"), "is not a folder"),
        (str(root / "sub"), r"no metadata.jsonl or metadata.csv in it"),
    ):
        with pytest.raises(UserError, match=what):
            Folder(given_root)
    (root / "metadata.csv").write_text("file_name,text\n1.png,a\n")
    with pytest.raises(UserError, match="keep one"):
        Folder(str(root))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("size", 30),
        ("on_error", "ignore"),
        ("fit", "squeeze"),
        ("polarity", "grey"),
        ("cache_mb", -1),
        ("val_share", 1.0),
        ("test_share", -0.1),
        ("val_share", 0.95),
    ],
)
def test_values_out_of_range_are_named(root: Path, key: str, value: float | str) -> None:
    with pytest.raises(UserError, match=f"^data.{key}={value}: "):
        Folder(str(root), **{key: value})


def test_without_a_cache_the_items_are_the_same(root: Path) -> None:
    cached, fresh = everything(Folder(str(root))), everything(Folder(str(root), cache_mb=0))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(cached, fresh, strict=True))


def test_captions_are_known_without_opening_an_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Folder(str(root), cache_mb=0)
    wanted = [item.caption for item in source.split("train")]
    monkeypatch.setattr("ragaf_exp.data.sources.folder.read_image", lambda *_: pytest.fail("opened"))
    assert len(wanted) > 3 and source.split("train").captions(3) == wanted[:3]


def test_a_split_travels_to_workers(root: Path) -> None:
    split = Folder(str(root)).split("train")
    assert pickle.loads(pickle.dumps(split))[0].key == split[0].key


def test_real_photos_with_captions(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "coco_mini"
    annotations = json.loads(next((source / "annotations").glob("captions*.json")).read_text())
    names = {image["id"]: image["file_name"] for image in annotations["images"]}
    rows = {names[a["image_id"]]: a["caption"] for a in annotations["annotations"]}
    chosen = [name for name in rows if (source / "val2017" / name).is_file()][:12]
    for name in chosen:
        shutil.copy(source / "val2017" / name, tmp_path / name)
    write_rows(tmp_path, [{"file_name": name, "text": rows[name]} for name in chosen])
    items = everything(Folder(str(tmp_path), size=64))
    assert len(items) == 12 and all(item.image.std() > 5 and item.caption for item in items)


def test_real_photos_with_sketches(shared_data: Path, tmp_path: Path) -> None:
    rows = []
    for photo in sorted((shared_data / "sketchy/photo").rglob("*.jpg"))[::20]:
        sketch = sorted((shared_data / "sketchy/sketch").rglob(f"{photo.stem}-*.png"))
        if sketch:
            for source, target in (
                (photo, tmp_path / photo.name),
                (sketch[0], tmp_path / f"d/{photo.stem}.png"),
            ):
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
            rows.append({"file_name": photo.name, "text": photo.parent.name})
    write_rows(tmp_path, rows)
    items = everything(Folder(str(tmp_path), drawings="d"))
    assert len(items) == len(rows) > 3 and all(0.005 < item.drawing.mean() < 0.4 for item in items)
