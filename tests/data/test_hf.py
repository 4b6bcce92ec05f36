"""Hugging Face datasets: saved folders, Parquet, splits, columns, drawings, and refusals."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.audit import main as audit
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.hf import HuggingFace
from ragaf_exp.data.split import SPLITS

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def packed(i: int, kind: str = "PNG") -> dict:
    rng = np.random.default_rng(i)
    image = Image.fromarray(np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": f"{i}.{kind.lower()}"}


def line(i: int) -> dict:
    image = np.full((48, 48), 255, np.uint8)
    image[10:38, 5 + i % 30] = 0
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def table(count: int = 30, first: int = 0) -> datasets.Dataset:
    rows = range(first, first + count)
    content = {"photo": [packed(i) for i in rows], "lines": [line(i) for i in rows], "words": [f"a cat {i}" for i in rows]}
    features = datasets.Features(photo=datasets.Image(), lines=datasets.Image(), words=datasets.Value("string"))
    return datasets.Dataset.from_dict(content, features=features)


COLUMNS = {"image": "photo", "text": "words", "drawing": "lines"}


def test_a_saved_split_is_divided_by_hash(tmp_path: Path):
    table().save_to_disk(tmp_path / "set")
    source = HuggingFace(str(tmp_path / "set"), size=48, val_share=0.2, test_share=0.2, **COLUMNS)
    items = {item.key: item for split in SPLITS for item in source.split(split)}
    assert len(items) == 30 and all(len(source.split(split)) for split in SPLITS)
    for i in (0, 7, 29):
        item = items[f"train/{i}"]
        with Image.open(io.BytesIO(packed(i)["bytes"])) as image:
            assert np.array_equal(item.image, np.asarray(image))
        assert item.caption == f"a cat {i}" and item.drawing[20, 5 + i % 30] > 0.9 and item.drawing[2].max() == 0
    copy = pickle.loads(pickle.dumps(source.split("train")))  # noqa: S301 - our own
    assert np.array_equal(copy[0].image, source.split("train")[0].image)


def test_given_splits_are_used(tmp_path: Path):
    parts = {"train": table(20), "validation": table(5, 20), "test": table(4, 30)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    source = HuggingFace(str(tmp_path / "set"), size=32, image="photo", text="words")
    assert [len(source.split(split)) for split in SPLITS] == [20, 5, 4] and source.split("val")[0].drawing is None


def test_a_folder_of_parquet_with_lists_of_captions(tmp_path: Path):
    rows = table(12)
    lists = rows.remove_columns("words").add_column("words", [[f"one {i}", f"two {i}"] for i in range(12)])
    (tmp_path / "set").mkdir()
    lists.to_parquet(tmp_path / "set" / "train.parquet")
    source = HuggingFace(str(tmp_path / "set"), size=32, image="photo", text="words", val_share=0.3, test_share=0.2)
    train = source.split("train")
    assert len(train) == 2 * len(source.records_of("train")) and train.captions(2) == ["one 0", "two 0"]
    assert len({item.key for item in train}) == len(train)


def test_bad_rows(tmp_path: Path):
    rows = table(12).to_dict()
    rows["words"][3], rows["photo"][4] = None, None
    rows["photo"][5] = {"bytes": packed(5, "JPEG")["bytes"][:200], "path": "5.jpg"}
    datasets.Dataset.from_dict(rows, features=table(1).features).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="1 of 12 items can't be used: train/3: its words is no text"):
        HuggingFace(str(tmp_path / "set"), **COLUMNS)
    source = HuggingFace(str(tmp_path / "set"), size=32, on_error="skip", check=True, **COLUMNS)
    assert source.skipped == 3


def test_refusals(tmp_path: Path):
    table(12).save_to_disk(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    for changes, says in (
        ({"text": "caption"}, "has no such column; it has photo, lines, words"), ({"image": "words"}, "not of images"),
        ({"root": ""}, "give one of them"), ({"source": "owner/name"}, "give one of them"),
        ({"root": str(tmp_path / "empty")}, "is no data set"), ({"root": str(tmp_path / "nowhere")}, "no such folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=says) as refusal:
            HuggingFace(**{"root": str(tmp_path / "set"), **COLUMNS} | changes)
        assert "\n" not in str(refusal.value)


def test_a_script_is_not_run(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="is no data set"):
        HuggingFace(str(tmp_path / "set"))
    assert not (tmp_path / "ran").exists()


def test_audit(cli, tmp_path: Path):
    rows = table(30).to_dict()
    rows["photo"][7] = rows["photo"][8]
    datasets.Dataset.from_dict(rows, features=table(1).features).save_to_disk(tmp_path / "set")
    arguments = ("data=hf", f"data.root={tmp_path / 'set'}", "data.image=photo", "data.text=words", "data.size=32")
    status, printed, _ = cli(audit, *arguments, "data.val_share=0.2", f"out={tmp_path / 'a.html'}")
    assert "exact duplicates" in printed and "30 items, 30 files" in printed and status in (0, 1)
