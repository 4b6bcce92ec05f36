"""Metadata as people write it: commas without quotes, other separators, lists of captions, names of other systems."""

from __future__ import annotations

import json
import logging
import sys
import types
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.images import ImageSet
from eval.sidecars import read_captions
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.sources.folder import Folder
from ragaf_exp.data.sources.metadata import read_rows, read_table
from ragaf_exp.data.sources.names import Names, normal
from ragaf_exp.data.split import SPLITS
from ragaf_exp.sample import batch_requests

GROESSE = "gr\N{LATIN SMALL LETTER O WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}e.png"
COUNT = 12


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(path, format="PNG")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(COUNT):
        save(tmp_path / "photos" / f"{i}.png", i)
    return tmp_path / "photos"


def captions(folder: Folder) -> dict[str, str]:
    """Captions of all splits by file name."""
    return {item.key.partition("#")[0]: item.caption for split in SPLITS for item in folder.split(split)}


def test_a_comma_without_quotes_is_refused_or_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"{i}.png,caption {i}" for i in range(COUNT - 1)]
    (root / "metadata.csv").write_text("\n".join(["file_name,text", *lines, "11.png,a red circle, left of a square"]))
    with pytest.raises(UserError) as caught:
        Folder(str(root), size=16)
    message = str(caught.value)
    assert "row 12: 11.png: it has 3 values for 2 columns (file_name, text)" in message and "\n" not in message
    assert 'holds a comma in "double quotes"' in message
    with caplog.at_level(logging.WARNING):
        folder = Folder(str(root), size=16, on_error="skip")
    assert folder.skipped == 1 and len(captions(folder)) == COUNT - 1 and "row 12" in caplog.text


def test_too_few_values_are_refused(root: Path) -> None:
    (root / "metadata.csv").write_text("file_name,text,author\n0.png,a cat,me\n1.png,a dog\n")
    with pytest.raises(UserError, match=r"row 2: 1\.png: it has 2 values for 3 columns .*add the missing ones"):
        Folder(str(root))


def test_empty_values_beyond_the_last_column_do_no_harm(root: Path) -> None:
    (root / "metadata.csv").write_text("file_name,text\n0.png,a cat,,\n1.png,a dog,\n2.png,\n\n")
    assert captions(Folder(str(root), size=16)) == {"0.png": "a cat", "1.png": "a dog", "2.png": ""}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_every_separator_is_read(root: Path, separator: str, suffix: str) -> None:
    rows = [("id", "file_name", " text "), ("7", "0.png", '"one, two; three\tfour"'), ("8", "1.png", "plain")]
    text = "\r\n".join(separator.join(row) for row in rows)
    (root / f"metadata.{suffix}").write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert captions(Folder(str(root), size=16)) == {"0.png": "one, two; three four", "1.png": "plain"}


def test_line_ends_of_old_spreadsheets(root: Path) -> None:
    (root / "metadata.csv").write_text("file_name;text\r0.png;a\r1.png;b\r", newline="")
    assert captions(Folder(str(root), size=16)) == {"0.png": "a", "1.png": "b"}


@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_named(root: Path, indent: int | None) -> None:
    (root / "metadata.jsonl").write_text(json.dumps([{"file_name": "0.png", "text": "a"}], indent=indent))
    with pytest.raises(UserError, match=r"line 1 .*begins an array; write one object per line.*jq -c '\.\[\]'"):
        Folder(str(root))


def test_an_object_over_several_lines_is_named(root: Path) -> None:
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a"}, indent=1))
    with pytest.raises(UserError, match=r"line 1 is not JSON, but begins an object; write each object on one line"):
        Folder(str(root))


def test_captions_and_batches_refuse_such_rows_too(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("file_name,text\n0.png,a red circle, left of a square\n")
    with pytest.raises(UserError, match=r"captions\.csv: row 1: it has 3 values for 2 columns.*double quotes"):
        read_captions(tmp_path / "captions.csv")
    (tmp_path / "batch.csv").write_text("sketch;prompt\na.png;red, blue\n")
    assert read_table(tmp_path / "batch.csv", ("sketch", "prompt")) == [{"sketch": "a.png", "prompt": "red, blue"}]
    (tmp_path / "many.jsonl").write_text(json.dumps({"file_name": "0.png", "text": ["a", "b"]}))
    with pytest.raises(UserError, match="row 1: its text is a list of 2; write one"):
        read_captions(tmp_path / "many.jsonl")


def test_all_captions_of_a_list_are_trained_on_and_the_first_is_evaluated(root: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": [f"{i} a", f" {i}  b ", f"{i} c"]} for i in range(COUNT)]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = Folder(str(root), size=16, val_share=0.25, test_share=0.25)
    sizes = {split: len(folder.split(split)) for split in SPLITS}
    assert sizes["train"] % 3 == 0 and sizes["train"] // 3 + sizes["val"] + sizes["test"] == COUNT
    train = folder.split("train")
    assert len({item.key for item in train}) == sizes["train"]
    number = train[0].key.partition(".")[0]
    assert [item.caption for item in train][:3] == [f"{number} a", f"{number} b", f"{number} c"]
    assert train.captions(2) == [f"{number} a", f"{number} b"]
    assert all(item.caption.endswith("a") for split in ("val", "test") for item in folder.split(split))


@pytest.mark.parametrize("text", [[], ["a", 5], [["a"]]])
def test_a_list_that_holds_no_captions_is_refused(root: Path, text: list) -> None:
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": text}))
    with pytest.raises(UserError, match=r"row 1: 0\.png: it has no text"):
        Folder(str(root))


def test_metadata_one_level_down_and_its_splits(root: Path) -> None:
    folders = {"train": range(8), "validation": range(8, 10), "test": range(10, 12)}
    for name, numbers in folders.items():
        (root / name).mkdir()
        for i in numbers:
            (root / f"{i}.png").rename(root / name / f"{i}.png")
        (root / name / "metadata.csv").write_text("file_name,text\n" + "".join(f"{i}.png,{i}\n" for i in numbers))
    (root / ".cache").mkdir()
    (root / ".cache" / "metadata.csv").write_text("file_name,text\nx.png,hidden\n")
    folder = Folder(str(root), size=16)
    for split, numbers in zip(SPLITS, folders.values(), strict=True):
        assert sorted(int(item.caption) for item in folder.split(split)) == list(numbers)
    (root / "test" / "metadata.csv").write_text("file_name,text\n10.png,10\ngone.png,11\n../train/1.png,leak\n")
    with pytest.raises(UserError, match=r"train/1\.png is named by test/metadata\.csv: row 3 and by train/.*: row 2"):
        Folder(str(root), size=16)
    (root / "test" / "metadata.csv").write_text("file_name,text\n10.png,10\ngone.png,11\n")
    with pytest.raises(UserError, match=r"test/metadata\.csv: row 2: .*gone\.png: no such file"):
        Folder(str(root), size=16)
    (root / "test" / "metadata.csv").write_text("file_name,text\n../../secret.png,11\n")
    with pytest.raises(UserError, match="leads out of the folder"):
        Folder(str(root), size=16)


def test_one_subfolder_of_train_is_split_by_hash(root: Path) -> None:
    root.rename(root.parent / "train")
    rows = "".join(f"{i}.png,{i}\n" for i in range(COUNT))
    (root.parent / "train" / "metadata.csv").write_text("file_name,text\n" + rows)
    folder = Folder(str(root.parent), size=16, val_share=0.3, test_share=0.3)
    assert all(len(folder.split(split)) for split in SPLITS) and len(captions(folder)) == COUNT


@pytest.mark.parametrize(
    ("disk", "named"),
    [
        ("images/p.png", "images\\p.png"),
        ("p.PNG", "p.png"),
        ("Images/P.png", "images/p.PNG"),
        (unicodedata.normalize("NFD", GROESSE), GROESSE),
        (GROESSE, unicodedata.normalize("NFD", GROESSE)),
        ("a.b.png", "A.B.png"),
    ],
)
def test_file_names_of_other_systems_are_resolved(tmp_path: Path, disk: str, named: str) -> None:
    save(tmp_path / disk)
    save(tmp_path / "drawings" / disk)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": named, "text": "a"}))
    folder = Folder(str(tmp_path), size=16, drawings="drawings")
    assert captions(folder) == {normal(disk): "a"}, "one identity, whatever the system"
    assert folder.split("train")[0].drawing is not None


def test_an_ambiguous_name_is_reported_and_not_guessed(tmp_path: Path) -> None:
    for name in ("p.PNG", "P.png", "q.jpg"):
        save(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "p.png", "text": ""}\n{"file_name": "q.png", "text": ""}')
    with pytest.raises(UserError) as caught:
        Folder(str(tmp_path))
    assert "p.png: no such file; P.png and p.PNG are there; name the one that is meant" in str(caught.value)
    assert "q.png: no such file; q.jpg is there" in str(caught.value)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    names = [GROESSE, unicodedata.normalize("NFD", GROESSE)]
    for i, name in enumerate(names):
        save(tmp_path / name, i)
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps({"file_name": n, "text": ""}) + "\n" for n in names))
    with pytest.raises(UserError, match="two files are called .*Unicode normal forms; rename one"):
        Folder(str(tmp_path))


def test_evaluation_and_batches_follow_the_same_rule(tmp_path: Path) -> None:
    disk = f"sub/{unicodedata.normalize('NFD', GROESSE)}"
    save(tmp_path / "images" / disk)
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file_name": f"sub\\{GROESSE}", "text": "a"}))
    assert list(read_captions(tmp_path / "captions.jsonl")) == list(ImageSet.folder(tmp_path / "images").keys)
    (tmp_path / "batch.jsonl").write_text(json.dumps({"sketch": f"images\\sub\\{GROESSE}", "prompt": "a"}))
    request = batch_requests({"batch": str(tmp_path / "batch.jsonl"), "out": str(tmp_path)})[0]
    assert request.sketch == tmp_path / "images" / disk


def test_a_missing_name_costs_no_listing_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / name)
    names, listings = Names(tmp_path), []
    listdir = sys.modules["os"].listdir
    monkeypatch.setattr("ragaf_exp.data.sources.names.os.listdir", lambda path: listings.append(path) or listdir(path))
    for i in range(50):
        assert names.find(f"{i}.png") is None and names.hint(f"{i}.png") == ""
    assert names.find("a.png") == "a.png" and len(listings) == 2


def test_parquet_is_read_where_pyarrow_is(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"file_name": "0.png", "text": ["a", "b"]}, {"file_name": "1.png", "text": ["c"]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "metadata.parquet")
    assert [row.texts for row in read_rows(root)] == [("a", "b"), ("c",)]
    (root / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"metadata\.parquet: can't be read as Parquet"):
        read_rows(root)


def test_parquet_without_pyarrow_names_the_package(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "metadata.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"metadata\.parquet: needs the package pyarrow; pip install pyarrow"):
        read_rows(root)


def test_parquet_rows_pass_the_same_checks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"file_name": "0.png", "text": ["a", "b"]}, {"file_name": "1.png", "text": None}]
    table = types.SimpleNamespace(to_pylist=lambda: rows)
    parquet = types.SimpleNamespace(read_table=lambda path: table)
    fake = types.SimpleNamespace(ArrowException=RuntimeError, parquet=parquet)
    monkeypatch.setitem(sys.modules, "pyarrow", fake)
    (root / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"row 2: 1\.png: it has no text"):
        Folder(str(root))
    assert Folder(str(root), on_error="skip", size=16).split("train").captions(2) == ["a", "b"]
